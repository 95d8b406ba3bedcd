"""The whole service in this process, for what can only be seen from inside: what it does when a part of it fails."""

import asyncio
import re
from pathlib import Path

import grpc
import pytest

from otpmail import app as module
from otpmail.app import App
from otpmail.settings import Settings
from otpmail.store.memory import MemoryChallengeStore
from otpmail.v1 import mail_pb2, mail_pb2_grpc
from relay import Relay


async def _refuses(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


@pytest.mark.relay(chunking=False, silent_at="DATA")
async def test_when_a_part_fails(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever waits is told, nothing listens any more, neither gRPC nor metrics, and `run` ends by what went wrong."""
    failing = asyncio.Event()

    async def fail(*_: object) -> None:
        await failing.wait()
        raise RuntimeError("boom")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MemoryChallengeStore, "sweep_forever", fail)
    monkeypatch.setattr(module, "_spare_the_collector", lambda: None)  # which would be for all tests
    caplog.set_level("INFO", "otpmail")
    settings = Settings.load(
        PORT="0",
        HTTP_PORT="0",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=str(relay.port),
        EMAIL_SECURITY="plain",
        EMAIL="user",
        APP_PASSWORD="secret",
        EMAIL_FROM="codes@example.org",
    )
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(App(settings).run(asyncio.Event(), started.set_result))
    address = await started
    (metrics,) = re.findall(r"metrics at http://([^/]+)/", caplog.text)
    assert not await _refuses(metrics)
    async with grpc.aio.insecure_channel(address) as channel:
        request = mail_pb2.SendMailRequest(to=["ada@example.org"], text="Hello")
        waiting = asyncio.ensure_future(mail_pb2_grpc.MailServiceStub(channel).SendMail(request))
        await relay.wait_for_command("DATA")
        failing.set()
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await waiting
        assert told.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "stop" in (told.value.details() or "")
    ended, _ = await asyncio.wait({running}, timeout=10)
    assert ended
    failure = running.exception()
    assert isinstance(failure, ExceptionGroup)
    assert [str(error) for error in failure.exceptions] == ["boom"]
    assert await _refuses(address)
    assert await _refuses(metrics)
