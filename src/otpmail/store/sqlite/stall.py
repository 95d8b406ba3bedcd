"""Notices that the thread of the file is stuck in one step, as where the disk no longer answers."""

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic

STALL_SECONDS = 5.0
"""How long a step may take before callers are refused: a step is a commit, of some milliseconds on most disks."""

_LOOK_SECONDS = 0.5


class StallWatch:
    """Looks on the loop at the step that the thread is at, for as long as `is_busy`; `changed` is called on the loop.

    A pause of the whole process is no stall: the step is to be the same in two looks. Its whole state: whether the
    thread is stuck, when its step began, on a monotonic clock, and what the last look has seen.
    """

    def __init__(
        self, is_busy: Callable[[], bool], changed: Callable[[], None], *, seconds: float = STALL_SECONDS
    ) -> None:
        self._is_busy = is_busy
        self._changed = changed
        self._seconds = seconds
        self._began = inf
        self._seen = inf
        self._timer: asyncio.TimerHandle | None = None
        self.is_stuck = False

    def __repr__(self) -> str:
        return f"<StallWatch{' stuck' * self.is_stuck}>"

    # In the thread.

    def begin_step(self) -> None:
        """Note that the thread is at work from now on."""
        self._began = monotonic()

    def end_step(self) -> None:
        """Note that the thread has done its work."""
        self._began = inf

    # On the loop.

    def follow(self) -> None:
        """Look from time to time from now on, until the thread has nothing to do."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        began, self._timer = self._began, None
        is_stuck = began == self._seen and monotonic() - began >= self._seconds
        self._seen = began
        if is_stuck or began < inf or self._is_busy():
            self.follow()
        if is_stuck is not self.is_stuck:
            self.is_stuck = is_stuck
            self._changed()
