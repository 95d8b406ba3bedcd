"""Shares the event loop between streams and other long work: each has it for a short time, and then others do."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic

_ROUND_SECONDS = 0.001
_MOST = 32  # turns that are woken for one round

Turn = Callable[[], Awaitable[None]]
"""Waits for the next turn of its caller."""


class Turns:
    """The turns of all streams, and of the mails that take long. In each round of the loop some of them go on.

    Short turns share a round, and so its fixed costs: once the first of them is `round_seconds` old, none begins.
    So any number of them holds the loop little longer than one does. `clock` counts seconds. Build it inside a running
    loop.
    """

    def __init__(self, clock: Callable[[], float] = monotonic, *, round_seconds: float = _ROUND_SECONDS) -> None:
        self.clock = clock
        self._round_seconds = round_seconds
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._first: deque[asyncio.Future[None]] = deque()  # those that were woken too late in their round
        self._woken = 0  # whose tasks have not gone on yet
        self._together = 1  # are woken for the next round
        self._gives = False  # whether `_give` is to be called
        self._round_ends: float | None = None  # None: nobody has begun in this round of the loop

    def __repr__(self) -> str:
        return f"<Turns {len(self._first) + len(self._waiting)} waiting, {self._together} together>"

    async def begin(self) -> None:
        """Wait for a turn as one who has just waited for something else: at once, where nobody else waits for one."""
        if self._waiting or self._first or self._woken or not self._has_time():
            await self.wait()

    async def wait(self) -> None:
        """Wait for the next turn, behind those who wait already."""
        await self._woken_from(self._waiting)
        while not self._has_time():
            self._together = 1
            await self._woken_from(self._first)

    async def _woken_from(self, waiting: deque[asyncio.Future[None]]) -> None:
        turn = self._loop.create_future()
        waiting.append(turn)
        if not self._gives:
            self._gives = True
            self._loop.call_soon(self._give)
        try:
            await turn
        finally:
            if not turn.cancelled():  # also where its task was cancelled after it was woken
                self._woken -= 1

    def _give(self) -> None:
        """Wake some: twice as many as for the round before, as long as all find time in it."""
        for _ in range(self._together):
            if not (waiting := self._first or self._waiting):
                break
            turn = waiting.popleft()
            if not turn.done():  # it is, where its task was cancelled
                self._woken += 1
                turn.set_result(None)
        self._together = min(2 * self._together, _MOST)
        self._gives = bool(self._first or self._waiting)
        if self._gives:
            self._loop.call_soon(self._give)

    def _has_time(self) -> bool:
        """Whether a turn may begin in this round of the loop."""
        now = self.clock()
        if self._round_ends is None:
            self._round_ends = now + self._round_seconds
            self._loop.call_soon(self._end_round)
            return True
        return now < self._round_ends

    def _end_round(self) -> None:
        self._round_ends = None
