"""Wakes a worker at a time, with as few timers as possible."""

import asyncio
from collections.abc import Callable
from math import inf


class Alarm:
    """At most one timer of the running loop, which calls `wake` `at` a time; infinity while it is off.

    A later time need not be set: an extra look costs less than a timer.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.at = inf
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Alarm at {self.at:g}>"

    def set(self, at: float) -> None:
        """Wake at this time on the loop's clock, and at no other."""
        self.cancel()
        self.at = at
        self._timer = self._loop.call_at(at, self._ring)

    def cancel(self) -> None:
        """Wake no more."""
        self.at = inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self.at, self._timer = inf, None
        self._wake()
