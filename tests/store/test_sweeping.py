"""Sweeps of a durable store: they go on whatever happens in one of them."""

import asyncio

import pytest

from otpmail.errors import StoreError, Unavailable
from otpmail.store.sweeping import sweep_forever


async def test_a_sweep_that_fails_is_followed_by_others(caplog: pytest.LogCaptureFixture) -> None:
    """A sweep that fails is logged unless the store is down, and the next one comes all the same."""
    errors = [StoreError("a key of another kind"), Unavailable("the store is down"), ValueError("a mistake")]
    done = asyncio.Event()

    async def sweep() -> None:
        if errors:
            raise errors.pop(0)
        done.set()

    sweeping = asyncio.create_task(sweep_forever(sweep, 0.0))
    async with asyncio.timeout(30):
        await done.wait()
    sweeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sweeping
    words = "ended records can't be dropped from the store: "
    assert caplog.messages == [f"{words}a key of another kind", f"{words}a mistake"]
