"""Holds unary calls back under load until the next batch begins: calls that begin together cost less each."""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any, Protocol

from otpmail.limits.processor import wanted_seconds

MOST_SECONDS = 0.01
"""The longest time from one batch to the next, and so the longest that a call is held back."""

_MEASURE_SECONDS = 0.25  # Between two measurements of how much the process wants.
_PAUSE_SECONDS = 0.5  # A measurement over a longer time was mostly idle, and says nothing of now.
_FIRST_SECONDS = 0.03  # From the first call after a pause to the measurement of what has begun.
_IDLE_PART = 0.9  # Of a core: with less to do, calls that wait are slower, and nobody gains by it.
_FEWEST = 4  # A smaller batch saves nothing, and its calls wait for each other.
_MOST = 32  # A larger batch saves hardly more for each of its calls.


class Clock(Protocol):
    """The part of an event loop that keeps time."""

    def time(self) -> float:
        """Seconds on a monotonic clock."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Any:
        """Call back at that time. Returns a handle with `cancel()`."""


class Batching:
    """Lets unary calls begin in batches under load: waking up for each alone costs more than most of them do.

    - A batch gathers only where the process wants more than nine tenths of a core, by its `wanted` seconds. It gathers
      longer the more it wants, up to `most_seconds` at a whole core. With 0 no call is held back.
    - A batch begins early once it holds as many calls as were in flight together since the last batch. A lone client
      that makes each call after the previous response is therefore not held back.
    - Calls that are answered at once are never in flight together. Four times a second one batch therefore gathers for
      its whole time, to count the calls that come.
    - After a pause the first measurement comes soon. No batch gathers for it: a lone client would wait for nobody.

    Build it inside a running loop. `clock` is that loop's unless another is passed in.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        most_seconds: float = MOST_SECONDS,
        wanted: Callable[[], float] = wanted_seconds,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock: Clock = clock or self._loop
        self._most_seconds = most_seconds
        self._wanted = wanted
        self._waiting: list[asyncio.Future[None]] = []
        self._timer: Any = None  # begins the batch; None while nothing waits
        self._interval = 0.0  # seconds from one batch to the next
        self._began_at = -inf
        self._expected = 1  # calls for which a batch waits
        self._peak = 1  # most calls in flight at once since the last batch
        self._measured_at, self._wanted_before = -inf, 0.0
        self._measures_at = -inf

    def __repr__(self) -> str:
        return f"<Batching {len(self._waiting)} waiting for {self._expected}, {self._interval * 1000:.1f} ms>"

    def take(self, in_flight: int) -> asyncio.Future[None] | None:
        """Return what a call must await before it begins, or None if it begins now. It may be cancelled.

        `in_flight` counts the calls that wait or run, with this one.
        """
        now = self._clock.time()
        self._peak = max(self._peak, in_flight)
        due_at = self._began_at + self._interval
        if len(self._waiting) + 1 >= self._expected or now >= due_at:
            self._begin(now)
            return None
        if self._timer is None:
            self._timer = self._clock.call_at(due_at, self._on_time)
        turn = self._loop.create_future()
        self._waiting.append(turn)
        return turn

    def _on_time(self) -> None:
        self._begin(self._clock.time())

    def _begin(self, now: float) -> None:
        self._began_at = now
        self._expected = min(self._peak, _MOST) if self._peak >= _FEWEST else 1
        self._peak = 1
        if now >= self._measures_at:
            self._measure(now)
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():  # a cancelled call has gone
                turn.set_result(None)

    def _measure(self, now: float) -> None:
        wanted, passed = self._wanted(), now - self._measured_at
        busy = min(1.0, (wanted - self._wanted_before) / passed)
        self._interval = self._most_seconds * max(0.0, busy - _IDLE_PART) / (1.0 - _IDLE_PART)
        self._measured_at, self._wanted_before = now, wanted
        if passed >= _MEASURE_SECONDS:
            self._expected = _MOST  # so that the next batch gathers for its whole time
        had_pause = passed >= _PAUSE_SECONDS and not self._interval
        self._measures_at = now + (_FIRST_SECONDS if had_pause else _MEASURE_SECONDS)
