"""A log that nobody reads: a full pipe on standard output and error delays no call, no stop and no signal."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from calls import send_to
from otpmail.v1 import mail_pb2, otp_pb2
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from relay import Certificates, Relay

_PEOPLE = [f"p{number}@example.org" for number in range(300)]


@pytest.fixture
async def unread(
    full_pipe: tuple[int, int], relay: Relay, certificates: Certificates, tmp_path: Path
) -> AsyncIterator[Service]:
    """Start a service that logs all it can to the full pipe."""
    settings: dict[str, Any] = relay_settings(relay, certificates, tmp_path / "token")
    settings |= {"HOST": f"unix:{tmp_path}/s", "LOG_LEVEL": "debug", "DRAIN_SECONDS": "60s"}
    service = Service.writing_to(full_pipe[1], **settings)
    try:
        await service.spawn()
        await service.wait_until_serving()
        yield service
    finally:
        await service.close()


async def _read_lines(fd: int, last: str) -> list[dict[str, object]]:
    """Read the log until the line of the event `last`."""
    octets = b""
    while f'"event": "{last}"'.encode() not in octets or not octets.endswith(b"\n"):
        part = await asyncio.wait_for(asyncio.to_thread(os.read, fd, 1 << 20), 20)
        assert part, "the log ended"
        octets += part
    return [json.loads(line) for line in octets.lstrip(b".").splitlines()]


async def test_calls_and_a_stop(unread: Service, relay: Relay) -> None:
    """Calls, health and codes are answered as always, and SIGTERM ends the service with 0, though no line was read."""
    answers = await send_to(unread, _PEOPLE)
    assert {mail.state for mail in answers.values()} == {mail_pb2.Mail.STATE_RELAYED}
    check = otp_pb2.ValidateCodeRequest(email="ada@example.org", code="123456")
    await unread.otp.ValidateCode(check)
    await unread.wait_until_serving()
    assert await unread.stop() == 0
    assert len(relay.mails) == len(_PEOPLE)


@pytest.mark.relay(chunking=False, silent_at="DATA")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_second_signal(unread: Service, relay: Relay, number: signal.Signals, code: int) -> None:
    """The second signal ends it, though the first waits for a mail and the thread of the log for a reader."""
    call = asyncio.ensure_future(unread.mail.SendMail(mail_pb2.SendMailRequest(to=["ada@example.org"], text="t")))
    await relay.wait_for_command("DATA")
    unread.send(number)
    await unread.wait_for_health(2)
    assert await unread.stop(number, timeout=20) == code
    with pytest.raises(Exception, match="UNAVAILABLE"):
        await call


async def test_what_was_dropped_is_counted(unread: Service, full_pipe: tuple[int, int]) -> None:
    """When somebody reads again, the lines come in their order, and one says how many are missing."""
    for _ in range(14):  # two lines of some 190 octets a mail fill the mebibyte
        await send_to(unread, _PEOPLE)
    lines = await _read_lines(full_pipe[0], "log-dropped")
    unread.send(signal.SIGTERM)
    lines += await _read_lines(full_pipe[0], "stopped")
    assert await unread.wait_exited() == 0
    assert lines[0]["event"] == "listening"
    times = [str(line["time"]) for line in lines if line["event"] != "log-dropped"]
    assert times == sorted(times)
    (dropped,) = [line for line in lines if line["event"] == "log-dropped"]
    mails = sum(line["event"] in {"mail-accepted", "mail-settled"} for line in lines)
    assert int(str(dropped["dropped"])) >= 14 * 2 * len(_PEOPLE) - mails > 0


async def test_a_reader_that_has_gone(unread: Service, full_pipe: tuple[int, int], relay: Relay) -> None:
    """A pipe that is closed at its other end (EPIPE) costs the log and nothing else."""
    os.close(full_pipe[0])
    await send_to(unread, _PEOPLE)
    assert len(relay.mails) == len(_PEOPLE)
    assert await unread.stop() == 0


@pytest.mark.parametrize("command", ["serve", "dev"])
async def test_a_wrong_setting_is_not_waited_for(full_pipe: tuple[int, int], command: str, tmp_path: Path) -> None:
    """A port that is taken ends the start with exit code 2, though nobody reads why."""
    async with asyncio.timeout(20):
        server = await asyncio.start_unix_server(lambda _, writer: writer.close(), tmp_path / "s")
        async with server:
            service = Service.writing_to(full_pipe[1], command=command, HOST=f"unix:{tmp_path}/s")
            try:
                await service.spawn()
                assert await service.wait_exited() == 2
            finally:
                await service.close()


async def test_dev_shows_mails_to_nobody(full_pipe: tuple[int, int], tmp_path: Path) -> None:
    """`otpmail dev` takes mails though it can't show them."""
    settings: dict[str, Any] = {"EMAIL": None, "APP_PASSWORD": None, "EMAIL_FROM": None}
    service = Service.writing_to(full_pipe[1], command="dev", HOST=f"unix:{tmp_path}/s", **settings)
    try:
        await service.spawn()
        await service.wait_until_serving()
        answers = await send_to(service, _PEOPLE)
        assert {mail.state for mail in answers.values()} == {mail_pb2.Mail.STATE_RELAYED}
        assert await service.stop() == 0
    finally:
        await service.close()
