"""Holds unary calls back under load until the next batch window opens: they begin together, and so cost less each."""

import asyncio
from collections.abc import Callable
from math import inf
from time import process_time

MOST_SECONDS = 0.01
"""How long calls gather at most, counted from when the last ones began."""

_LOOK_SECONDS = 0.25  # between two looks at how busy the process is, and at how many calls come in a window
_WORTH_IT = 4  # calls: fewer together save nothing, and keep each other waiting
_ENOUGH = 32  # calls: more together cost each of them hardly less


class BatchWindow:
    """Under load, calls begin a few at a time: waking up for each by itself costs more than most of them do.

    The busier the process is, by its `cpu` seconds, the longer a window: `MOST_SECONDS` where it keeps a core busy, a
    quarter of that at half of it, since with time to spare there is little to gain. A call waits only for those that
    are to be expected: as many as were under way at once since calls last began. So of calls one after another, each
    made when the last has been answered, none waits, but for one four times a second; and nobody waits beyond the next
    window. With `most_seconds` 0 no call ever waits.
    """

    def __init__(self, cpu: Callable[[], float] = process_time, *, most_seconds: float = MOST_SECONDS) -> None:
        self._cpu = cpu
        self._most_seconds = most_seconds
        self._seconds = 0.0
        self._looked_at, self._used = -inf, 0.0
        self._began_at = -inf
        self._expected = 1
        self._peak = 1

    def __repr__(self) -> str:
        return f"<BatchWindow {self._seconds * 1000:.1f} ms, {self._expected} expected>"

    @property
    def next_at(self) -> float:
        """When whoever waits is to begin."""
        return self._began_at + self._seconds

    def is_due(self, now: float, *, waiting: int, under_way: int) -> bool:
        """Whether the `waiting` calls are to begin now; `under_way` are these and those not yet answered."""
        self._peak = max(self._peak, under_way)
        return waiting >= self._expected or now >= self._began_at + self._seconds

    def began(self, now: float) -> None:
        """All that waited have begun."""
        self._began_at = now
        self._expected = min(self._peak, _ENOUGH) if self._peak >= _WORTH_IT else 1
        self._peak = 1
        if now - self._looked_at >= _LOOK_SECONDS:
            self._look(now)

    def _look(self, now: float) -> None:
        used = self._cpu()
        busy = min(1.0, (used - self._used) / (now - self._looked_at))
        self._seconds = self._most_seconds * busy * busy
        self._looked_at, self._used = now, used
        # Calls that are answered at once are never seen together: so one whole window is waited for, to see who comes.
        self._expected = _ENOUGH


class Batching:
    """Calls that have come and not begun. All begin in this turn of the loop or the next; what they do leaves together.

    Build it inside a running loop.
    """

    def __init__(self, window: BatchWindow | None = None) -> None:
        self._window = window or BatchWindow()
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[None]] = []
        self._alarm: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Batching {len(self._waiting)} waiting, {self._window!r}>"

    def take(self, under_way: int) -> asyncio.Future[None] | None:
        """What a call is to wait for before it begins, if anything; so many are under way, with this one.

        Who waits may be cancelled.
        """
        now = self._loop.time()
        if self._window.is_due(now, waiting=len(self._waiting) + 1, under_way=under_way):
            self._begin(now)
            return None
        if self._alarm is None:
            self._alarm = self._loop.call_at(self._window.next_at, self._ring)
        turn = self._loop.create_future()
        self._waiting.append(turn)
        return turn

    def _ring(self) -> None:
        self._begin(self._loop.time())

    def _begin(self, now: float) -> None:
        self._window.began(now)
        if self._alarm is None:
            return
        self._alarm.cancel()
        self._alarm = None
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():  # else its call was cancelled
                turn.set_result(None)
