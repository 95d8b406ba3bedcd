"""Frames of HTTP/2 that no library sends: they cost the sender the connection, and the service a moment."""

from __future__ import annotations

import asyncio
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from attacks.limited import LimitedService
from http2 import CONTINUATION, DATA, END_HEADERS, HEADERS, PING, PREFACE, SETTINGS, frame, literal
from otpmail.v1 import mail_pb2, otp_pb2
from relay import Faults, Relay
from service import relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from relay import Certificates

pytestmark = pytest.mark.timeout(300)

LATER = "later@slow.example"
"""Whom the relay defers."""

_HEAD = b"".join(
    literal(name, value)
    for name, value in (
        *((":method", "POST"), (":scheme", "http"), (":path", "/otpmail.v1.OtpService/SendCode"), (":authority", "x")),
        *(("content-type", "application/grpc"), ("te", "trailers")),
    )
)
_OPEN, _WHOLE = frame(HEADERS, 0, 1, _HEAD), frame(HEADERS, END_HEADERS, 1, _HEAD)
_WINDOW = struct.pack("!HI", 4, 65_535)
FLOODS = {
    "names of one letter": (_OPEN, frame(CONTINUATION, 0, 1, b"\0\1a\0" * 3000)),
    "long names": (_OPEN, frame(CONTINUATION, 0, 1, literal("x-a", "v" * 100) * 100)),
    "empty continuations": (_OPEN, frame(CONTINUATION, 0, 1, b"") * 500),
    "empty data": (_WHOLE, frame(DATA, 0, 1, b"") * 500),
    "settings": (b"", frame(SETTINGS, 0, 0, _WINDOW) * 500),
    "pings": (b"", frame(PING, 0, 0, bytes(8)) * 500),
}
"""The first octets of a connection, and those that then come without end."""

_CONNECTIONS, _SECONDS, _MORE_SECONDS = 12, 4.0, 10.0


@pytest.fixture
async def service(certificates: Certificates, tmp_path: Path) -> AsyncIterator[LimitedService]:
    """Start the service in its 512 MiB, with a relay that defers one recipient."""
    async with Relay(Faults(auth=(), refuse_recipients={LATER: "451 4.7.1 later"})) as relay:
        settings = relay_settings(relay, certificates, tmp_path / "token")
        async with LimitedService(OTP_RESEND_SECONDS=1, **settings) as service:
            await service.wait_until_serving()
            yield service


@pytest.mark.parametrize("flood", list(FLOODS))
async def test_frames_without_end(service: LimitedService, flood: str, *, full: bool) -> None:
    """The process lives, a code goes out afterwards, and no mail that was guaranteed is lost."""
    kept = mail_pb2.SendMailRequest(to=[LATER], text="t", wait_for=mail_pb2.WAIT_FOR_QUEUE)
    mail = (await service.mail.SendMail(kept)).mail.id
    ends = time.monotonic() + (_MORE_SECONDS if full else _SECONDS)
    await asyncio.gather(*(_flood(service.address, *FLOODS[flood], ends) for _ in range(_CONNECTIONS)))
    await service.otp.SendCode(otp_pb2.SendCodeRequest(email="ada@example.org"), wait_for_ready=True, timeout=20)
    state = (await service.mail.GetMail(mail_pb2.GetMailRequest(id=mail), wait_for_ready=True)).state
    assert state in {mail_pb2.Mail.STATE_QUEUED, mail_pb2.Mail.STATE_SENDING}
    assert service.exit_code is None
    assert service.peak <= service.allowed


async def _flood(address: str, first: bytes, frames: bytes, ends: float) -> None:
    """Send without reading, until then or until the service ends the connection."""
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(PREFACE + frame(SETTINGS, 0, 0, b"") + first)
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + ends - time.monotonic()):
                while True:
                    writer.write(frames)
                    await writer.drain()
    finally:
        writer.transport.abort()
