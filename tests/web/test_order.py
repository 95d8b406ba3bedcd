"""Requests and answers on one connection: in order, framed for each client, and none after one that can't be read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from otpmail.web.connection import Connection
from otpmail.web.ending import Times
from otpmail.web.listener import Listener
from web.listening import connected

if TYPE_CHECKING:
    from otpmail.web.exchange import Exchange

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\n"


async def _echo(exchange: Exchange) -> None:
    parts = []
    while part := await exchange.read():
        parts.append(part)
    await exchange.answer(200, exchange.path.encode() + b" " + b"".join(parts))


async def _stream(exchange: Exchange) -> None:
    await exchange.begin(200, (b"content-type", b"text/plain"))
    await exchange.write(b"one ")
    await exchange.end(b"two")


@pytest.mark.parametrize(
    "broken", [b"no request\r\n\r\n", POST + b"x: a\x00b\r\n\r\n", POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n"]
)
async def test_a_request_that_cannot_be_read_is_answered_in_its_turn(broken: bytes) -> None:
    """The 400 to a broken request comes after the answers before it, else a client would mix them up."""
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        asked.set()
        await go.wait()
        await exchange.answer(200, b"well")

    async with connected(Listener(slow, most=10)) as (reader, writer):
        writer.write(GET + GET + broken + GET)
        await asked.wait()
        reading = asyncio.create_task(reader.read())
        await asyncio.wait((reading,), timeout=0.1)
        assert not reading.done()
        go.set()
        answers = (await reading).split(b"HTTP/1.1 ")[1:]
        assert [answer[:3] for answer in answers] == [b"200", b"200", b"400"]


async def test_a_head_that_comes_late_waits_for_the_answers_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that takes longer than a head may is not cut by the half request behind it."""
    look, looks = Connection._look, asyncio.Semaphore(0)

    def look_and_say(self: Connection) -> None:
        """Look whether the head is overdue, and say so."""
        look(self)
        looks.release()

    async def slow(exchange: Exchange) -> None:
        for _ in range(3):
            await looks.acquire()
        await exchange.answer(200, b"well")

    monkeypatch.setattr(Connection, "_look", look_and_say)

    async with connected(Listener(slow, most=10, times=Times(head=0.1))) as (reader, writer):
        writer.write(GET + b"GET /")
        answers = (await reader.read()).split(b"HTTP/1.1 ")[1:]
        assert [answer[:3] for answer in answers] == [b"200", b"408"]


async def test_a_body_that_breaks_off_ends_its_request() -> None:
    """The one that is being read is answered 400 at once, once, and its handler is cancelled."""
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def reads(exchange: Exchange) -> None:
        try:
            while await exchange.read():
                asked.set()
        except asyncio.CancelledError:
            cancelled.set()
            await exchange.answer(200, b"never seen")
            raise

    async with connected(Listener(reads, most=10)) as (reader, writer):
        writer.write(POST + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        await asked.wait()
        writer.write(b"zz\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1 ") == 1
        await cancelled.wait()


async def test_a_head_behind_a_long_body() -> None:
    """A body and half of the next head that come together are no long head."""
    body = b"x" * 200_000
    async with connected(Listener(_echo, most=10)) as (reader, writer):
        writer.write(POST + b"content-length: %d\r\n\r\n" % len(body) + body + LAST[:30])
        await reader.readuntil(b"/ " + body)
        writer.write(LAST[30:])
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")


async def test_a_body_that_nobody_reads_is_dropped() -> None:
    """The next request of the connection is answered all the same, and the body is never read as a request."""

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(200, exchange.path.encode())

    async with connected(Listener(answer, most=10)) as (reader, writer):
        writer.write(POST + b"content-length: 300000\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n/")
        writer.write(GET + bytes(300_000 - len(GET)) + LAST)
        answers = (await reader.read()).split(b"HTTP/1.1 ")[1:]
        assert [part.rpartition(b"\r\n")[2] for part in answers] == [b"/last"]


async def test_an_answer_in_parts() -> None:
    """An answer in parts is chunked for HTTP/1.1, and for 1.0 it ends with the connection. HEAD gets the head alone."""
    async with connected(Listener(_stream, most=10)) as (reader, writer):
        writer.write(GET)
        assert (await reader.readuntil(b"0\r\n\r\n")).endswith(b"\r\n\r\n4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n")
        writer.write(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        answer = await reader.read()
        assert b"chunked" not in answer
        assert answer.endswith(b"connection: close\r\n\r\none two")
    async with connected(Listener(_stream, most=10)) as (reader, writer):
        writer.write(b"HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"\r\n\r\n")


async def test_a_client_that_asks_whether_to_go_on() -> None:
    """`Expect: 100-continue` is answered once, before the body is read, and not where it is not read."""
    async with connected(Listener(_echo, most=10)) as (reader, writer):
        writer.write(POST + b"content-length: 2\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        answer = await reader.read()
        assert (answer.count(b"HTTP/1.1 "), answer[-4:]) == (1, b"/ hi")

    async def unread(exchange: Exchange) -> None:
        exchange.keep_alive = False
        await exchange.answer(200, b"")

    async with connected(Listener(unread, most=10)) as (reader, writer):
        writer.write(POST + b"content-length: 2\r\nexpect: 100-continue\r\n\r\n")
        assert b" 100 " not in await reader.read()


async def test_a_client_that_asks_before_an_answer_in_parts() -> None:
    """The 100 comes before the head of the answer, else it would be a part of its body."""

    async def both(exchange: Exchange) -> None:
        await exchange.begin(200)
        await exchange.end(await exchange.read())

    async with connected(Listener(both, most=10)) as (reader, writer):
        writer.write(POST + b"content-length: 2\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"hi")
        assert await reader.read() == b"2\r\nhi\r\n0\r\n\r\n"


@pytest.mark.parametrize("octets", [60_000, 66_000, 70_000, 80_000])
async def test_the_length_of_a_head(octets: int) -> None:
    """The length of a head is measured to the octet or so, also where a body comes with it."""
    async with connected(Listener(_echo, most=10)) as (reader, writer):
        writer.write(POST + b"connection: close\r\ncontent-length: 2\r\nx: " + b"x" * octets + b"\r\n\r\nhi")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 " if octets < 65_000 else b"HTTP/1.1 431 ")


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb: c", b"a\rb"])
async def test_no_field_of_an_answer_holds_another(value: bytes) -> None:
    """The answer is 500 then, and none of the field is sent."""

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(200, b"", (b"x-name", value))

    async with connected(Listener(answer, most=10)) as (reader, writer):
        writer.write(GET)
        answered = await reader.read()
        assert answered.startswith(b"HTTP/1.1 500 ")
        assert b"x-name" not in answered


async def test_a_client_that_reads_nothing() -> None:
    """A client that reads nothing lets its answers wait: no more than a few buffers of them are made."""
    made = 0

    async def large(exchange: Exchange) -> None:
        nonlocal made
        await exchange.answer(200, bytes(1 << 20))
        made += 1

    async with connected(Listener(large, most=10)) as (_, writer):
        for _ in range(20):
            writer.write(GET * 10)
            await asyncio.sleep(0.02)
        assert made < 40
