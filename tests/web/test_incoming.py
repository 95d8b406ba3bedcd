"""Requests that come count in the memory until a call has them, and no longer than they are there."""

from __future__ import annotations

import asyncio
import json
import zlib
from contextlib import AsyncExitStack
from http import HTTPStatus
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from calls import scrape
from http1 import SEND_MAIL, url_of
from otpmail.errors import MemoryFull
from otpmail.limits.memory import NOTHING, Memory
from otpmail.web.body import unpack
from otpmail.web.listener import Listener
from web.listening import listening

if TYPE_CHECKING:
    from otpmail.web.exchange import Exchange
    from service import Service

MOST = 4 << 20
HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def _memory(for_calls: int = 100 << 20) -> Memory:
    return Memory(2 * for_calls, NOTHING, NOTHING)


async def _gather(exchange: Exchange) -> None:
    try:
        body = await exchange.read_all(MOST)
    except MemoryFull:
        await exchange.answer_status(HTTPStatus.TOO_MANY_REQUESTS)
    else:
        await exchange.answer(200, b"%d" % len(body))


async def _until(memory: Memory, least: int, most: int) -> None:
    """Wait until requests take so much of the memory."""
    while not least <= memory.reading <= most:  # noqa: ASYNC110  a plain number wakes nobody
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("end", ["complete", "too long", "unread", "chunked wrongly", "gone", "cut", "stop"])
async def test_a_body_counts_while_it_comes(end: str) -> None:
    """Each of its octets counts from when it comes until a call has it, and none after any end."""
    memory = _memory()
    listener = Listener(_answer_unread if end == "unread" else _gather, most=10, memory=memory)
    async with listening(listener) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if end == "chunked wrongly":
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n" % 2_000_000)
        else:
            writer.write(HEAD % (2 * MOST if end == "too long" else 2_000_000))
        writer.write(bytes(1_000_000 if end != "unread" else 20_000))
        if end == "unread":
            assert await reader.readuntil(b"ok")
        else:
            await _until(memory, 1_000_000, 1_001_000)
        if end == "complete":
            writer.write(bytes(1_000_000))
            assert await reader.readuntil(b"2000000")
        elif end == "too long":
            writer.write(bytes(2 * MOST - 1_000_000))
            assert b"200 OK" in await reader.readline()
        elif end == "chunked wrongly":
            writer.write(bytes(1_000_000) + b"zz\r\n")
            assert b" 400 " in await reader.readline()
        elif end == "gone":
            writer.close()
        elif end == "cut":
            writer.transport.abort()
        elif end == "stop":
            await listener.stop(0.1)
        await _until(memory, 0, 0)
        writer.close()


async def _answer_unread(exchange: Exchange) -> None:
    await exchange.answer(200, b"ok")


async def test_a_body_that_does_not_fit_is_refused() -> None:
    """A body that does not fit is dropped at once, so that others fit, and its call ends with MemoryFull."""
    memory = _memory(3_000_000)
    listener = Listener(_gather, most=10, memory=memory)
    async with AsyncExitStack() as stack, listening(listener) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        stack.callback(writer.close)
        writer.write(HEAD % 2_500_000 + bytes(2_000_000))
        await _until(memory, 2_000_000, 2_001_000)
        late_reader, late = await asyncio.open_connection("127.0.0.1", port)
        stack.callback(late.close)
        late.write(HEAD % 2_000_000 + bytes(2_000_000))
        assert b" 429 " in await late_reader.readline()
        await _until(memory, 2_000_000, 2_001_000)
        writer.write(bytes(500_000))
        assert await reader.readuntil(b"2500000")
        await _until(memory, 0, 0)


async def test_a_small_body_in_parts_needs_no_room() -> None:
    """Where calls take all of the memory, a small body fits as one over gRPC does, also if its head came before it."""
    memory = _memory(3_000_000)
    memory.reading = 3_000_000
    async with listening(Listener(_gather, most=10, memory=memory)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(HEAD % 300)
            await asyncio.sleep(0.05)
            for _ in range(3):
                writer.write(bytes(100))
                await asyncio.sleep(0.05)
            assert b" 200 " in await reader.readline()
            await reader.readuntil(b"\r\n\r\n300")
        assert memory.reading == 3_000_000
        writer.close()


async def test_requests_that_wait_for_their_answers_count() -> None:
    """With the fields of their heads, which take many times their octets, and up to the memory alone."""
    go, fields = asyncio.Event(), b"".join(b"%d:\r\n" % number for number in range(90))

    async def answer(exchange: Exchange) -> None:
        await go.wait()
        await exchange.answer(200, b"ok")

    request = GET[:-2] + fields + b"\r\n"
    memory = _memory(100_000)
    async with AsyncExitStack() as stack, listening(Listener(answer, most=10, memory=memory)) as port:
        readers = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            writer.write(request * 4)
            readers.append(reader)
        await _until(memory, 60_000, 100_000)
        await asyncio.sleep(0.1)
        assert memory.reading <= 100_000
        go.set()
        counts = sorted([(await reader.read()).count(b" 429 ") for reader in readers[1:]])
        assert counts[-1] == 1
        await _until(memory, 0, 0)


async def test_what_is_unpacked_counts() -> None:
    """Octets of gzip count beside what they hold, and nothing once the body is whole or has not fitted."""
    memory, seen = _memory(3_000_000), []

    async def turn() -> None:
        seen.append(memory.reading)

    context = Mock()
    context.exchange.connection.memory = memory
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    octets = packer.compress(bytes(2_000_000)) + packer.flush()
    assert len(await unpack(context, octets, most=MOST, turn=turn)) == 2_000_000
    assert seen[-1] == 2_000_000 + len(octets)
    assert memory.reading == 0
    memory.reading = 2_000_000
    with pytest.raises(MemoryFull):
        await unpack(context, octets, most=MOST, turn=turn)
    assert memory.reading == 2_000_000


@pytest.mark.service(HTTP_PORT=0, MEMORY_MAX_MB=16, MAIL_MAX_BYTES=500_000)
async def test_a_caller_is_told_that_the_memory_is_full(service: Service) -> None:
    """As over gRPC: RESOURCE_EXHAUSTED, with what is full. Bodies that came before are answered."""
    port = int(url_of(service).rpartition(":")[2])
    head = b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n" % SEND_MAIL.encode()
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        streams = []
        for _ in range(140):
            streams.append(await asyncio.open_connection("127.0.0.1", port))
            stack.callback(streams[-1][1].close)
            streams[-1][1].write(head + b"content-length: 400000\r\n\r\n" + b" " * 300_000)
        while (await scrape(service))['otpmail_memory_bytes{part="reading"}'] < 7_500_000:  # noqa: ASYNC110  no event says it
            await asyncio.sleep(0.05)
        answers = []
        for reader, writer in streams:
            writer.write(b" " * 100_000)
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
            answers.append((head.split(b" ")[1], json.loads(body)["details"][0]["debug"]["reason"]))
    late = (b"429", "READ_TOO_SLOW")  # where a busy machine takes half a second to send the rest while others wait
    assert set(answers) - {late} == {(b"400", "INVALID_ARGUMENT"), (b"429", "MEMORY_FULL")}
