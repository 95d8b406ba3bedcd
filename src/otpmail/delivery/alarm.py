"""Wakes a worker at a time, with as few timers as possible."""

import asyncio
from collections.abc import Callable
from math import inf


class Alarm:
    """At most one timer of the running loop, which calls `wake`."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Alarm {'off' if self._timer is None else f'at {self._timer.when():g}'}>"

    def set(self, until: float) -> None:
        """Wake at `until` on the loop's clock. An earlier alarm is kept: a timer costs more than an extra look."""
        if self._timer is not None and self._timer.when() <= until:
            return
        self.cancel()
        if until < inf:
            self._timer = self._loop.call_at(until, self._ring)

    def cancel(self) -> None:
        """Wake no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        self._wake()
