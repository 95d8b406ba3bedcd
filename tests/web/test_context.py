"""How a call over HTTP ends: by its status, also where another task gives it, and once."""

import asyncio
from unittest.mock import Mock

import pytest

from otpmail.api.calls import CallEnded
from otpmail.api.status import Code
from otpmail.web.context import CallContext
from otpmail.web.exchange import Exchange, Transport


def _context(transport: Mock, *, seconds: float | None = None) -> CallContext:
    exchange = Exchange(transport, "POST", "/", b"", {}, is_old=False, keep_alive=True)

    async def read(_: CallContext) -> bytes:
        return b""

    return CallContext(exchange, read, seconds)


async def test_another_task_ends_a_call() -> None:
    """A call that another one aborts is cancelled, and has that status."""
    transport = Mock(spec=Transport)
    context = _context(transport)
    transport.running = asyncio.create_task(context.run(asyncio.Event().wait()))
    await asyncio.sleep(0)
    with pytest.raises(CallEnded):
        await context.abort(Code.UNAVAILABLE, "full")
    assert await transport.running is None
    assert context.ended == (Code.UNAVAILABLE, "full", ())


async def test_a_call_that_is_over_is_aborted_no_more() -> None:
    """An abort that comes late leaves the next request of the connection alone."""
    transport = Mock(spec=Transport)
    context = _context(transport, seconds=0.01)
    assert await context.run(asyncio.sleep(0, "well")) == "well"
    transport.running = asyncio.create_task(asyncio.sleep(0.03, "the next one"))
    with pytest.raises(CallEnded):
        await context.abort(Code.UNAVAILABLE, "full")
    assert await transport.running == "the next one"
