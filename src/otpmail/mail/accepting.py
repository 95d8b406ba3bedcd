"""The mails that a stream has brought, and that a durable store has not answered about yet."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from otpmail.mail.keeping import Prepared

_TOGETHER = 100  # mails in one commit
_MOST_KEEPING = 300  # mails in commits before the stream reads on: a commit takes about as long as three batches
_MOST_TASKS = 256  # of mails that wait for the store one by one


class Accepting:
    """Gathers mails into groups, each of which `keep` has the store keep, and runs that beside the stream.

    `drop` gives up a mail of no group. `on_idle` is called whenever nothing is left to wait for. A stream that read its
    next batch only once all was kept would leave workers idle for the time of each commit.
    """

    def __init__(
        self,
        keep: Callable[[list[Prepared]], Coroutine[Any, Any, None]],
        drop: Callable[[Prepared], None],
        on_idle: Callable[[], None],
    ) -> None:
        self._keep_group = keep
        self._drop = drop
        self._on_idle = on_idle
        self._group: list[Prepared] = []
        self._keeping = 0  # mails in groups that are being kept
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Accepting {len(self._group)} gathered, {self._keeping} being kept, {len(self._tasks)} tasks>"

    def __bool__(self) -> bool:
        """Whether the store is still to answer about mails."""
        return bool(self._tasks)

    def add(self, prepared: Prepared) -> None:
        """Put a mail into the group that is kept next."""
        self._group.append(prepared)
        if len(self._group) >= _TOGETHER:
            self.keep()

    def keep(self) -> None:
        """Have the store keep the mails that are prepared, in one commit, while others are."""
        if self._group:
            group, self._group = self._group, []
            self._keeping += len(group)
            self._run(self._keep(group))

    async def run(self, accepting: Coroutine[Any, Any, None]) -> None:
        """Run the acceptance of one mail, and wait while there are many."""
        self._run(accepting)
        await asyncio.sleep(0)  # it is composed now, one in each round of the loop
        if len(self._tasks) >= _MOST_TASKS:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    async def wait_for_few(self) -> None:
        """Wait until the store has answered about most groups."""
        while self._keeping > _MOST_KEEPING:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    def drop_group(self) -> None:
        """Give up the mails that are in no commit yet."""
        group, self._group = self._group, []
        for prepared in group:
            self._drop(prepared)

    def call_when_kept(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the store has answered about all mails that it was given until now."""
        left = set(self._tasks)
        if not left:
            callback()

        def ended(task: asyncio.Task[None]) -> None:
            """Call back after the last of them."""
            left.discard(task)
            if not left:
                callback()

        for task in tuple(left):
            task.add_done_callback(ended)

    def cancel(self) -> None:
        """Cancel the mails that the store has not answered about: their caller knows nothing of them."""
        loop = asyncio.get_running_loop()
        for task in self._tasks:
            loop.call_soon(task.cancel)  # one that was made in this turn begins first: only then it frees its places

    async def _keep(self, group: list[Prepared]) -> None:
        try:
            await self._keep_group(group)
        finally:
            self._keeping -= len(group)

    def _run(self, accepting: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(accepting)
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._on_idle()
