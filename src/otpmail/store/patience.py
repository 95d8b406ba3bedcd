"""Asks a store that is down again: what a call has changed is taken back behind it, for a minute at most."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from otpmail.errors import Unavailable

T = TypeVar("T")

LONGEST_SECONDS = 60.0
"""For how long a store may be down until something is taken back. After that the next mail has to wait its time."""


async def until_up(step: Callable[[], Awaitable[T]], *, pause: float | None = None) -> T:
    """Take a step of a store, again and again while that is down, and return its result.

    Between two tries it waits `pause` seconds, or as long as the store asks for. The caller limits the time.
    """
    while True:
        try:
            return await step()
        except Unavailable as error:
            await asyncio.sleep(error.retry_after if pause is None else pause)
