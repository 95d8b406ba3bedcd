"""Shares the event loop between streams and other long work: each has it for a short time, and then others do."""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic


class Turns:
    """The turns of all streams, and of the mails that take long. In each round of the loop one of them goes on.

    So any number of them holds the loop no longer than one does. `clock` counts seconds. Build it inside a running
    loop.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_free = True  # nobody has begun in this round of the loop

    def __repr__(self) -> str:
        return f"<Turns {len(self._waiting)} waiting>"

    async def begin(self) -> None:
        """Wait for a turn as one who has just waited for something else: at once, where nobody else has the loop."""
        if not self._is_free or self._waiting:
            await self.wait()
            return
        self._is_free = False
        self._loop.call_soon(self._end_round)

    def _end_round(self) -> None:
        self._is_free = True

    async def wait(self) -> None:
        """Wait for the next turn, behind those who wait already."""
        turn = self._loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._give)
        await turn

    def _give(self) -> None:
        turn = self._waiting.popleft()
        if not turn.done():  # it is, where its task was cancelled
            turn.set_result(None)
        if self._waiting:
            self._loop.call_soon(self._give)
