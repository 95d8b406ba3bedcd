"""Repeats a step of a store while the store is down, such as one that undoes what an ended call has counted."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from otpmail.errors import Unavailable

T = TypeVar("T")

LONGEST_SECONDS = 60.0
"""How long an undo is retried while the store is down. After that its count or wait stays until it ends by itself."""


async def until_up(step: Callable[[], Awaitable[T]], *, pause: float | None = None) -> T:
    """Take a step of a store, again and again while that is down, and return its result.

    Between two tries it waits `pause` seconds, or as long as the store asks for. The caller limits the time.
    """
    while True:
        try:
            return await step()
        except Unavailable as error:
            await asyncio.sleep(error.retry_after if pause is None else pause)
