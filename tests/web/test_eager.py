"""An answer that begins without a task ends as one with a task does, whether or not it waits."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from otpmail.web.eager import start_eagerly
from otpmail.web.listener import Listener
from web.listening import connected

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from otpmail.web.exchange import Exchange

NOTED: ContextVar[str] = ContextVar("NOTED", default="")
HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"
POST = HEAD + b"body"
LAST = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


class Answers:
    """Answers with the body, and notes what each answer saw. It waits in that many rounds of the loop."""

    def __init__(self, waits: int) -> None:
        self._waits = waits
        self.seen: list[tuple[str, bool]] = []

    async def __call__(self, exchange: Exchange) -> None:
        """Answer."""
        self.seen.append((NOTED.get(), asyncio.current_task() is None))
        NOTED.set("of another request")
        body = exchange.whole_body(1000)
        for _ in range(self._waits):
            await asyncio.sleep(0)
        if body is None:
            body = await exchange.read()
        await exchange.answer(200, body)


def _bodies(answers: bytes) -> list[bytes]:
    return [answer.partition(b"\r\n\r\n")[2] for answer in answers.split(b"HTTP/1.1 200 OK")[1:]]


@pytest.mark.parametrize("waits", [0, 1, 3])
async def test_answers_come_in_order_each_in_a_context_of_its_own(waits: int) -> None:
    """Notes of one request about its caller are unknown to the next one. The first of each octets needs no task."""
    answers = Answers(waits)
    async with connected(Listener(answers, most=10, eager_paths=("/",))) as (reader, writer):
        writer.write(POST + POST + POST)
        for _ in range(3):
            await reader.readuntil(b"body")
        writer.write(HEAD)
        await asyncio.sleep(0.05)
        writer.write(b"late")
        await reader.readuntil(b"late")
        writer.write(LAST)
        assert _bodies(await reader.read()) == [b""]
    assert {noted for noted, _ in answers.seen} == {""}
    assert [needs_none for _, needs_none in answers.seen] == [True, False, False, False, True]


async def test_a_caller_that_goes_ends_an_answer_that_waits() -> None:
    """It is cancelled, also where it began without a task."""
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def waits(_: Exchange) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with connected(Listener(waits, most=10, eager_paths=("/",))) as (_, writer):
        writer.write(POST)
        await asked.wait()
        writer.close()
        await cancelled.wait()


@pytest.mark.parametrize("waits", [False, True])
async def test_an_error_is_answered(waits: bool) -> None:  # noqa: FBT001  a parameter of pytest
    """An answer that raises is 500, with or without a task."""

    async def raises(_: Exchange) -> None:
        if waits:
            await asyncio.sleep(0)
        raise ValueError

    async with connected(Listener(raises, most=10, eager_paths=("/",))) as (reader, writer):
        writer.write(POST)
        assert (await reader.read()).startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize("broken", [b"no request\r\n\r\n", HEAD[:-2] + b"transfer-encoding: chunked\r\n\r\nzz\r\n"])
async def test_a_request_that_cannot_be_read_behind_one_that_is_answered_at_once(broken: bytes) -> None:
    """The first one is answered, then the second one is refused."""
    async with connected(Listener(Answers(0), most=10, eager_paths=("/",))) as (reader, writer):
        writer.write(POST + broken + POST)
        answers = (await reader.read()).split(b"HTTP/1.1 ")[1:]
        assert [answer[:3] for answer in answers] == [b"200", b"400"]


async def test_a_body_that_breaks_off_at_once() -> None:
    """A request that is refused before its answer has begun is not answered beside that."""
    answers = Answers(0)
    async with connected(Listener(answers, most=10, eager_paths=("/",))) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\nzz\r\n")
        answer = await reader.read()
        assert (answer[:12], answer.count(b"HTTP/1.1 ")) == (b"HTTP/1.1 400", 1)
    assert not answers.seen


async def test_a_task_that_is_cancelled_before_its_first_step() -> None:
    """The answer gets the cancellation, and can end what it has begun."""
    ended: list[Any] = []

    async def answer() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            ended.append(asyncio.current_task())
            raise

    task = start_eagerly(asyncio.get_running_loop(), answer())
    assert task is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [task]


async def test_a_cancel_before_the_first_step_reaches_what_is_awaited() -> None:
    """A lock that was awaited at once is not taken for one that was given, and a task that was awaited ends."""
    semaphore, ended = asyncio.Semaphore(0), asyncio.Event()

    async def inner() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    async def answer(awaited: Awaitable[object]) -> None:
        await awaited

    child = asyncio.ensure_future(inner())
    await asyncio.sleep(0)
    for awaited in (semaphore.acquire(), child):
        task = start_eagerly(asyncio.get_running_loop(), answer(awaited))
        assert task is not None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert semaphore.locked()
    assert ended.is_set()
