"""Takes sendings back whose mails were not sent, whatever becomes of the calls that they belong to."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from otpmail.errors import Unavailable
from otpmail.model import Sending

CLOSE_SECONDS = 2.0
"""For how long a stop waits."""

_WAIT_SECONDS = 1.0  # for which a refused call waits until its sending is undone
_LONGEST_SECONDS = 60.0  # for which a store may be down until a sending is undone

Undo = Callable[[bytes, Sending], Awaitable[None]]
"""A store's decision that takes a sending back in a record."""


class Undoing:
    """The tasks that take sendings back. Build it inside a running loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Undoing {len(self._tasks)} sendings>"

    def begin(self, undo: Undo, key: bytes, sending: Sending) -> "asyncio.Task[None]":
        """Undo a sending behind the call; `close` waits for it."""
        task = asyncio.create_task(_apply(undo, key, sending))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def run(self, undo: Undo, key: bytes, sending: Sending) -> None:
        """Undo a sending, and wait for that a moment: it goes on behind the call while the store is down."""
        await asyncio.wait((self.begin(undo, key, sending),), timeout=_WAIT_SECONDS)

    async def close(self, seconds: float) -> None:
        """Wait for what is being undone, `seconds` at most."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()


async def _apply(undo: Undo, key: bytes, sending: Sending) -> None:
    """Undo a sending, again and again while the store takes no changes, for a minute at most."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_LONGEST_SECONDS):
            while True:
                try:
                    return await undo(key, sending)
                except Unavailable as error:
                    await asyncio.sleep(error.retry_after)
