"""Requests that offer another protocol, by Upgrade or CONNECT: their bodies are never read as requests."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from http1 import SEND_CODE, converse, url_of
from node_programs import program

if TYPE_CHECKING:
    from service import Service

OPEN: dict[str, object] = {"HTTP_PORT": 0, "OTP_RESEND_SECONDS": "0"}
WEBSOCKET = b"connection: upgrade\r\nupgrade: websocket\r\n"
H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
HIDDEN = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
LAST = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


def _statuses(octets: bytes) -> list[bytes]:
    return [answer[:3] for answer in octets.split(b"HTTP/1.1 ")[1:]]


async def _converse_by_parts(service: Service, *parts: bytes) -> bytes:
    """Send parts that come each in a packet of its own, and return all that comes until the connection closes."""
    url = urlsplit(url_of(service))
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.1)
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("offer", [WEBSOCKET, H2C], ids=("websocket", "h2c"))
@pytest.mark.parametrize("target", [b"POST " + SEND_CODE.encode(), b"GET /livez"], ids=("method", "probe"))
@pytest.mark.service(**OPEN)
async def test_a_request_in_the_body_of_an_upgrade(service: Service, target: bytes, offer: bytes) -> None:
    """A request in the body of an upgrade is body, whether it comes with its head or later: it has one answer."""
    head = target + b" HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n" + offer
    for framed in (
        (head + b"content-length: %d\r\n\r\n" % len(HIDDEN), HIDDEN),
        (head + b"transfer-encoding: chunked\r\n\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)),
    ):
        status = b"400" if target.startswith(b"POST") else b"200"
        together = await converse(service, b"".join(framed) + LAST)
        assert _statuses(together) == [status, b"200"]
        apart = await _converse_by_parts(service, framed[0][:30], framed[0][30:], framed[1], LAST)
        assert _statuses(apart) == [status, b"200"]


@pytest.mark.parametrize("offer", [WEBSOCKET, H2C], ids=("websocket", "h2c"))
@pytest.mark.service(**OPEN)
async def test_an_upgrade_is_ignored(service: Service, offer: bytes) -> None:
    """Java's client offers HTTP/2 with each first request; it is answered by HTTP/1.1, and the next one too."""
    body = b'{"email":"ada@example.org"}'
    head = b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n" % SEND_CODE.encode()
    call = head + offer + b"content-length: %d\r\n\r\n" % len(body) + body
    asked = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n" + offer + b"\r\n"
    assert _statuses(await converse(service, call + asked + call + LAST)) == [b"200"] * 4
    assert _statuses(await _converse_by_parts(service, call, asked, call[:-5], call[-5:], LAST)) == [b"200"] * 4


@pytest.mark.service(**OPEN)
async def test_curl_offers_http2(service: Service) -> None:
    """`curl --http2` posts and reads as over HTTP/1.1."""
    running = await asyncio.create_subprocess_exec(
        program("curl"),
        *("--silent", "--http2", "--max-time", "20", "--write-out", "%{http_code} %{http_version}"),
        *("--output", "/dev/null", "--header", "content-type: application/json", "--data"),
        *('{"email":"ada@example.org"}', url_of(service) + SEND_CODE),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await running.communicate()
    assert output.decode() == "200 1.1"


@pytest.mark.service(**OPEN)
async def test_connect_is_refused(service: Service) -> None:
    """The service is no proxy: CONNECT ends the connection, and what follows it is not read."""
    for target in (b"example.org:443", b"/livez"):
        head = b"CONNECT " + target + b" HTTP/1.1\r\nhost: localhost\r\n" + WEBSOCKET + b"\r\n"
        answers = await converse(service, head + LAST)
        assert len(_statuses(answers)) == 1
        assert _statuses(answers)[0].startswith(b"4")
