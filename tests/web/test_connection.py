"""Connections of HTTP/1.1 as they come: slow, long, many, pipelined, cut, and octets that are no request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import tracemalloc
import zlib
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from http1 import JSON, PROTO, SEND_CODE, SEND_MAIL, converse, request, url_of
from otpmail.v1 import mail_pb2
from otpmail.web.ending import Times
from otpmail.web.listener import Listener

if TYPE_CHECKING:
    from otpmail.web.exchange import Exchange
    from service import Service

OPEN: dict[str, object] = {"HTTP_PORT": 0, "OTP_RESEND_SECONDS": "0"}
HEAD = b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n" % SEND_CODE.encode()
LIVE = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"


async def _is_live(service: Service) -> bool:
    return (await request(service, "/livez")).status == 200


@pytest.mark.service(**OPEN)
async def test_a_head_that_is_too_long(service: Service) -> None:
    """A head of more than 64 KiB, or of more than a hundred fields, is refused and the connection closed."""
    for head in (
        b"GET /livez HTTP/1.1\r\nhost: x\r\nx: " + b"a" * (1 << 20),
        b"GET /" + b"a" * (1 << 20),
        b"GET /livez HTTP/1.1\r\n" + b"".join(b"x%d: a\r\n" % n for n in range(200)) + b"\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"x: a\r\n" * 100_000,
    ):
        answer = await converse(service, head)
        assert answer.startswith(b"HTTP/1.1 431 ")
    assert await _is_live(service)


async def test_a_head_that_does_not_come() -> None:
    """A connection without a whole head is answered 408 after its time, also where octets drip in."""
    answered = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(200, b"ok")
        answered.set()

    listener = Listener(answer, most=10, times=Times(head=0.2))
    port = await listener.start("127.0.0.1", 0)
    try:
        for first in (b"", LIVE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(first + b"GET /")
            reading = asyncio.create_task(_read_all(reader))
            while not reading.done():
                writer.write(b"x")
                await asyncio.sleep(0.05)
            answers = await reading
            writer.close()
            assert answers.count(b"HTTP/1.1 200 ") == bool(first)
            assert b"HTTP/1.1 408 Request Timeout" in answers
    finally:
        await listener.stop()


@pytest.mark.service(**OPEN)
async def test_octets_that_are_no_request(service: Service, subtests: pytest.Subtests) -> None:
    """Octets that are no request get 400, and the connection closes: two readers of them would not agree."""
    for octets in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(512),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\n{}",
        HEAD + b"content-length: -1\r\n\r\n{}",
        HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        HEAD + b"x: a\x00b\r\n\r\n",
        b"\x00" * 100,
    ):
        with subtests.test(octets=octets):
            answer = await converse(service, octets)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert answer.count(b"HTTP/1.1 ") == 1
            assert answer.endswith(b"\r\n\r\n400 Bad Request\n")
            assert b"\r\ndate: " in answer
            assert b"\r\nx-content-type-options: nosniff\r\n" in answer
            assert await _is_live(service)


@pytest.mark.service(**OPEN)
async def test_the_host_and_the_version_of_a_request(service: Service, subtests: pytest.Subtests) -> None:
    """HTTP/1.1 needs one Host (RFC 9112, 3.2), 1.0 none, and other versions are answered 505."""
    host, end = b"host: localhost\r\n", b"connection: close\r\n\r\n"
    for octets, status in (
        (b"GET /livez HTTP/1.1\r\n" + end, b"400"),
        (b"GET /livez HTTP/1.1\r\n" + host + b"Host: localhost\r\n" + end, b"400"),
        (b"GET /livez HTTP/1.0\r\n" + host + b"x: y\r\nhost: other\r\n" + end, b"400"),
        (b"GET /livez HTTP/1.1\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", b"400"),
        (b"GET /livez HTTP/0.9\r\n" + host + end, b"505"),
        (b"GET /livez HTTP/2.0\r\n" + host + end, b"505"),
        (b"GET /livez HTTP/1.1\r\nhost:\r\n" + end, b"200"),
        (b"GET /livez HTTP/1.1\r\n" + host + end, b"200"),
        (b"GET /livez HTTP/1.0\r\n" + host + end, b"200"),
        (b"GET /livez HTTP/1.0\r\n\r\n", b"200"),
    ):
        with subtests.test(octets=octets):
            answer = await converse(service, octets)
            assert answer.startswith(b"HTTP/1.1 " + status)
            assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    ("start", "codings", "status"),
    [
        *((HEAD, codings, b"200") for codings in (b"chunked", b"Chunked ", b", chunked")),
        *(
            (HEAD, codings, b"501")
            for codings in (b"gzip, chunked", b"identity,chunked", b"x\r\nTransfer-Encoding: chunked")
        ),
        (HEAD.replace(b"HTTP/1.1", b"HTTP/1.0"), b"chunked", b"400"),
    ],
)
@pytest.mark.service(**OPEN)
async def test_bodies_whose_ends_others_may_see_elsewhere(
    service: Service, start: bytes, codings: bytes, status: bytes
) -> None:
    """Beside chunked no Transfer-Encoding is known, and in HTTP/1.0 none at all (RFC 9112, 6.1)."""
    body = b'{"email":"ada@example.org"}'
    octets = start + b"transfer-encoding: %b\r\nconnection: close\r\n\r\n" % codings
    answer = await converse(service, octets + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.service(**OPEN)
async def test_blanks_around_a_value(service: Service) -> None:
    """Blanks before and behind the value of a field are no part of it (RFC 9112, 5.1)."""
    body = b'{"email":"ada@example.org"}'
    fields = b"host:\tlocalhost:80 \t\r\nconnect-timeout-ms:  20000 \r\ncontent-encoding: identity\t\r\n"
    head = b"POST %b HTTP/1.1\r\ncontent-type:application/json \r\nconnection: close\r\n" % SEND_CODE.encode()
    answer = await converse(service, head + fields + b"content-length: %d \r\n\r\n" % len(body) + body)
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.service(**OPEN)
async def test_random_octets(service: Service) -> None:
    """Nothing that comes keeps the service from the next request, and the log has no error."""
    dice = random.Random(7)
    whole = HEAD + b'content-length: 27\r\n\r\n{"email":"ada@example.org"}'
    for _ in range(150):
        octets = bytearray(whole)
        for _ in range(dice.randrange(1, 8)):
            octets[dice.randrange(len(octets))] = dice.randrange(256)
        reader, writer = await _connect(service)
        writer.write(bytes(octets))
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 30)
        writer.close()
    assert await _is_live(service)
    assert not service.logged("unforeseen")


@pytest.mark.service(**OPEN)
async def test_requests_in_a_row_on_one_connection(service: Service) -> None:
    """Pipelined requests are answered in their order, and a hundred that wait for none of their answers are refused."""
    body = b'{"email":"nobody"}'
    call = HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
    last = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answers = (await converse(service, call + LIVE + call + last)).split(b"HTTP/1.1 ")
    assert [answer[:3] for answer in answers[1:]] == [b"400", b"200", b"400", b"200"]
    flood = await converse(service, LIVE * 20_000)
    assert flood.count(b"HTTP/1.1 ") < 200
    assert await _is_live(service)


@pytest.mark.service(**OPEN, MAIL_MAX_BYTES=100_000)
async def test_a_body_that_is_too_long(service: Service) -> None:
    """As over gRPC it is RESOURCE_EXHAUSTED, also where it is packed or comes in pieces, and is not read to its end."""
    mail = json.dumps({"to": ["ada@example.org"], "text": "x" * 3_000_000}).encode()
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(256)), packer.flush()])
    assert len(bomb) < 300_000
    for body, headers in ((mail, JSON), (bomb, {**JSON, "content-encoding": "gzip"}), (mail, PROTO)):
        answer = await request(service, SEND_MAIL, body, headers)
        assert (answer.status, answer.json["code"]) == (429, "resource_exhausted")
    endless = HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"10000\r\n" + b"x" * 65536 + b"\r\n"
    answer_to_it = await converse(service, endless + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 40)
    assert answer_to_it.startswith(b"HTTP/1.1 429 ")
    for broken in (b"\x1f\x8b", b"no gzip", bomb[:1000], zlib.compress(b"{}"), _gzip(b"{}") + b"more"):
        answer = await request(service, SEND_MAIL, broken, {**JSON, "content-encoding": "gzip"})
        assert (answer.status, answer.json["code"]) == (400, "invalid_argument")
    assert await _is_live(service)


@pytest.mark.service(**OPEN)
async def test_many_small_values_in_json(service: Service) -> None:
    """JSON of megabytes with a value in every few octets is refused before it is read: it would hold the loop."""
    body = b'{"to":[' + b'"a",' * 1_000_000 + b'"b"]}'
    answer = await request(service, SEND_MAIL, body, JSON)
    assert (answer.status, answer.json["code"]) == (400, "invalid_argument")
    assert "values" in answer.json["message"]


@pytest.mark.service(**OPEN, MAX_CONNECTIONS=20)
async def test_connections_that_say_nothing(service: Service) -> None:
    """Connections that say nothing keep nobody out: the one that has been idle longest gives way."""
    async with AsyncExitStack() as stack:
        for _ in range(60):
            _, writer = await _connect(service)
            stack.callback(writer.close)
            writer.write(HEAD)
        for _ in range(3):
            assert await _is_live(service)


@pytest.mark.service(**OPEN, MAX_CONNECTIONS=20)
async def test_probes_while_all_connections_are_taken(service: Service) -> None:
    """A few more connections may come for probes alone; a call there is 503, and is to be made again."""
    async with AsyncExitStack() as stack:
        for _ in range(20):
            reader, writer = await _connect(service)
            stack.callback(writer.close)
            head = b"POST /otpmail.v1.MailService/SendMails HTTP/1.1\r\nhost: localhost\r\n"
            writer.write(head + b"content-type: application/jsonl\r\ntransfer-encoding: chunked\r\n\r\n1\r\n\n\r\n")
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        for _ in range(20):
            answer = await request(service, "/livez")
            assert (answer.status, answer.fields["connection"]) == (200, "close")
        refused = await request(service, SEND_CODE, b"{}", JSON)
        assert (refused.status, refused.fields["retry-after"]) == (503, "1")


async def test_bodies_in_chunks_of_two_octets() -> None:
    """A body that waits takes about its octets of memory, not an object for each chunk."""
    asked, go = asyncio.Event(), asyncio.Event()
    bodies: list[bytes] = []

    async def answer(exchange: Exchange) -> None:
        asked.set()
        await go.wait()
        parts = []
        while part := await exchange.read():
            parts.append(part)
        bodies.append(b"".join(parts))
        await exchange.answer(200, b"ok")

    chunk, count = b"2\r\nab\r\n", 30_000
    listener = Listener(answer, most=10)
    port = await listener.start("127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        tracemalloc.start()
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        await asyncio.wait_for(asked.wait(), 30)
        before = _octets_of_exchanges()
        writer.write(chunk * count)
        async with asyncio.timeout(30):
            while (taken := _octets_of_exchanges() - before) < 2 * count:  # noqa: ASYNC110  no event says it
                await asyncio.sleep(0.05)
        tracemalloc.stop()
        writer.write(b"0\r\n\r\n")
        go.set()
        await asyncio.wait_for(reader.readuntil(b"ok"), 30)
        writer.close()
    finally:
        await listener.stop()
    assert bodies == [b"ab" * count]
    assert taken < 3 * 2 * count


def _octets_of_exchanges() -> int:
    """Return what is allocated in `web.exchange`, or by what it calls, and lives still."""
    only = tracemalloc.Filter(inclusive=True, filename_pattern="*/otpmail/web/*")
    return sum(found.size for found in tracemalloc.take_snapshot().filter_traces([only]).statistics("filename"))


@pytest.mark.relay(final_reply="451 4.3.0 later")
@pytest.mark.service(**OPEN)
@pytest.mark.parametrize(
    ("octets", "behind"), [(2, b""), (70_000, b""), (200_000, b""), (1_000_000, b""), (2, LIVE), (2, LIVE * 20)]
)
async def test_a_caller_that_goes_is_not_waited_for(service: Service, octets: int, behind: bytes) -> None:
    """A mail that is not guaranteed is cancelled when its caller's connection is cut, as over gRPC.

    It may be large, and other requests may have come behind it.
    """
    body = mail_pb2.SendMailRequest(to=["ada@example.org"], text="Hi" * (octets // 2)).SerializeToString()
    head = b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/proto\r\n" % SEND_MAIL.encode()
    _, writer = await _connect(service)
    writer.write(head + b"content-length: %d\r\n\r\n" % len(body) + body + behind)
    deferred = await service.wait_for_log("mail-deferred")
    writer.transport.abort()
    async with asyncio.timeout(30):
        watched = service.mail.WatchMail(mail_pb2.WatchMailRequest(id=str(deferred["mail"])))
        assert [mail.state async for mail in watched][-1] == mail_pb2.Mail.STATE_CANCELLED


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(1 << 16):
            parts.append(part)
    return b"".join(parts)


async def _connect(service: Service) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(url_of(service))
    return await asyncio.open_connection(url.hostname, url.port)


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()
