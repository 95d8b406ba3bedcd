"""The whole service in this process, for what can only be seen from inside, such as a part that fails."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from otpmail.app import App
from otpmail.events import ConnectionOpened, Event, MailAccepted
from otpmail.settings import Settings
from otpmail.v1 import mail_pb2, mail_pb2_grpc
from relay import Relay


def _settings(relay: Relay, **more: str) -> Settings:
    return Settings.load(
        PORT="0",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=str(relay.port),
        EMAIL_SECURITY="plain",
        EMAIL="user",
        APP_PASSWORD="secret",
        EMAIL_FROM="codes@example.org",
        **more,
    )


async def _refuses(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def _not_serving(channel: grpc.aio.Channel) -> None:
    """Wait until health says so, which a stop does first."""
    health: Any = health_pb2_grpc.HealthStub(channel)
    watch = health.Watch(health_pb2.HealthCheckRequest())
    async for answer in watch:
        if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
            break
    watch.cancel()


class Failing:
    """An observer that breaks its promise: once `fails` is set it raises, in the worker that opens a connection."""

    event_types: frozenset[type[Event]] = frozenset({ConnectionOpened})

    def __init__(self) -> None:
        self.fails = False

    def notify(self, event: Event) -> None:  # noqa: ARG002 -- an observer's signature
        """Raise, if it is to fail."""
        if self.fails:
            raise RuntimeError("boom")


@pytest.mark.parametrize("stopping", [False, True], ids=["running", "stopping"])
@pytest.mark.relay(chunking=False, silent_at="DATA")
async def test_when_a_part_fails(
    relay: Relay,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    stopping: bool,
) -> None:
    """Waiting callers get UNAVAILABLE, neither gRPC nor metrics are served any more, and `run` raises the failure.

    So it is where a stop has begun, and waits for the mail in flight.
    """
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "otpmail")
    settings, failing = _settings(relay, HTTP_PORT="0", WORKERS="1"), Failing()
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    running = asyncio.create_task(App(settings, failing).run(stop, lambda address, _: started.set_result(address)))
    address = await started
    (metrics,) = re.findall(r"metrics at http://([^/]+)/", caplog.text)
    assert not await _refuses(metrics)
    async with grpc.aio.insecure_channel(address) as channel:
        request = mail_pb2.SendMailRequest(to=["ada@example.org"], text="Hello")
        waiting = asyncio.ensure_future(mail_pb2_grpc.MailServiceStub(channel).SendMail(request))
        await relay.wait_for_command("DATA")
        if stopping:
            stop.set()
            await _not_serving(channel)
        failing.fails = True
        relay.cut_connections()
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await waiting
        assert told.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "stop" in (told.value.details() or "")
    ended, _ = await asyncio.wait({running}, timeout=10)
    assert ended
    failure = running.exception()
    assert isinstance(failure, ExceptionGroup)
    assert failure.split(lambda error: str(error) == "boom")[1] is None
    assert await _refuses(address)
    assert await _refuses(metrics)


class Accepted:
    """Counts accepted mails, and sets an event when there are so many."""

    event_types: frozenset[type[Event]] = frozenset({MailAccepted})

    def __init__(self, wanted: int) -> None:
        self.count = 0
        self.reached = asyncio.Event()
        self._wanted = wanted

    def notify(self, event: Event) -> None:
        """Count it, if it is one."""
        self.count += isinstance(event, MailAccepted)
        if self.count == self._wanted:
            self.reached.set()


@pytest.mark.relay(chunking=False, silent_at="DATA")
async def test_a_stream_does_not_fill_the_queue(relay: Relay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stream brings no more mails than its turn while the queue has enough for all connections."""
    monkeypatch.chdir(tmp_path)
    stop, accepted = asyncio.Event(), Accepted(32)
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    app = App(_settings(relay, WORKERS="2", EMAIL_WINDOW="4", DRAIN_SECONDS="0"), accepted, pause_seconds=600.0)
    running = asyncio.create_task(app.run(stop, lambda address, _: started.set_result(address)))
    async with grpc.aio.insecure_channel(await started) as channel:
        mails: Any = mail_pb2_grpc.MailServiceStub(channel)
        batch = [mail_pb2.SendMailRequest(to=["ada@example.org"], text="Hello", request_id=f"{n}") for n in range(200)]
        call = mails.SendMails(iter([mail_pb2.SendMailsRequest(mails=batch)]))
        async with asyncio.timeout(10):
            await accepted.reached.wait()
            single = mail_pb2.SendMailRequest(to=["ada@example.org"], text="Hello", wait_for=mail_pb2.WAIT_FOR_QUEUE)
            await mails.SendMail(single)
        count = accepted.count  # asserted in the end, since a stream that is left running would outlast its server
        stop.set()
        async with asyncio.timeout(10):
            results = [result async for answer in call for result in answer.results]
            await running
    assert count == 33
    assert len(results) == 200


_LOADED = "print('email_validator' in sys.modules)"
_COMMAND = f"import sys, otpmail.cli; {_LOADED}"
_SERVICE = f"""
import asyncio, sys
from otpmail.cli.running import _build
from otpmail.settings import Settings
{_LOADED}
async def build():
    _build(Settings.load(EMAIL_HOST="127.0.0.1", EMAIL="a@example.org", APP_PASSWORD="secret"), None, None, bool)
asyncio.run(build())
{_LOADED}
"""


@pytest.mark.parametrize(("code", "loaded"), [(_COMMAND, ["False"]), (_SERVICE, ["False", "True"])])
def test_the_library_of_unusual_addresses(code: str, loaded: list[str], tmp_path: Path) -> None:
    """A service loads it before its first call, which would hold the loop, and a command only if it needs it."""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == loaded
