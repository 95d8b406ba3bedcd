"""Takes back what a store has counted for mails that were not sent, whatever becomes of their calls."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from otpmail.store.patience import LONGEST_SECONDS, until_up

CLOSE_SECONDS = 2.0
"""For how long a stop waits."""

_WAIT_SECONDS = 1.0  # for which a refused call waits until its mail counts no more

_log = logging.getLogger("otpmail")

Undo = Callable[[], Awaitable[object]]
"""A store's decision that takes something back."""


class Undoing:
    """The tasks that take something back. Build it inside a running loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Undoing {len(self._tasks)} decisions>"

    def begin(self, undo: Undo) -> "asyncio.Task[None]":
        """Undo a decision behind the call; `close` waits for it."""
        return self.own(_apply(undo))

    def own(self, undoing: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run what undoes something in the end, behind the call; `close` waits for it. The task raises nothing."""
        task = asyncio.create_task(_logged(undoing))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def run(self, undo: Undo) -> None:
        """Undo a decision, and wait for that a moment. It goes on behind the call while the store is down."""
        await asyncio.wait((self.begin(undo),), timeout=_WAIT_SECONDS)

    async def wait(self) -> None:
        """Wait for what is being undone now, a moment at most."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=_WAIT_SECONDS)

    async def close(self, seconds: float) -> None:
        """Wait for what is being undone, `seconds` at most, and cancel what takes longer."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


async def _logged(undoing: Coroutine[Any, Any, None]) -> None:
    """Run what undoes something. A fault is logged: no call waits for the result."""
    try:
        await undoing
    except Exception as error:  # noqa: BLE001  the log is the only place that can tell of it
        text = "the counts of a mail that was not sent can't be taken back: %s"
        _log.error(text, error, exc_info=error, extra={"event": "store-change-dropped", "fields": {}})


async def _apply(undo: Undo) -> None:
    """Undo a decision, again and again while the store takes no changes, for a minute at most."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LONGEST_SECONDS):
            await until_up(undo)
