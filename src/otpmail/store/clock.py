"""The store's clock: wall time that outlives the process, and never runs backwards."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

elapsed: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""Returns a monotonic time in seconds, which goes on while the machine is suspended, where the system has one."""

_CATCH_UP = 0.01


class Boot(NamedTuple):
    """One start of the machine, by a name of its own that is empty where the system gives none, and its age now."""

    name: str
    seconds: float

    @classmethod
    def now(cls) -> "Boot":
        """Return the present one. Its age counts what the machine was suspended for, too."""
        try:
            name = _BOOT_ID.read_text("ascii").strip()
        except (OSError, ValueError):
            return cls("", 0.0)
        return cls(name, elapsed())


class Mark(NamedTuple):
    """A moment on a store's clock. By `boot` a later process on the machine knows how long ago it was."""

    time: float
    boot: Boot


class StoreClock:
    """Seconds since the epoch: the wall clock at the start, and from then on the time that has passed.

    A wall clock that is set back or forward meanwhile neither revives a code nor ends it early. One that is ahead is
    approached slowly (`keep_up`). The time that the machine is suspended has passed too, so no code lives longer for
    it.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = elapsed,
        boot: Callable[[], Boot] = Boot.now,
    ) -> None:
        self._elapsed = elapsed
        self._boot = boot
        self._wall = wall
        self._offset = wall() - elapsed()
        self._kept_up = elapsed()

    def __repr__(self) -> str:
        return f"<StoreClock {self():.3f}>"

    def __call__(self) -> float:
        """Return the time in seconds since the epoch."""
        return self._offset + self._elapsed()

    def never_below(self, stored: float) -> None:
        """Move the clock forward to the greatest time that a store holds, where the wall clock was set back since."""
        self._offset = max(self._offset, stored - self._elapsed())

    def follow(self, time: float, *, most: float) -> None:
        """Move the clock forward to the time of another one, by `most` seconds at once: that one may have been set."""
        self._offset += min(most, max(0.0, time - self()))

    def keep_up(self) -> None:
        """Move the clock towards a wall clock that is ahead, by a hundredth of the time since the last call at most.

        The system's clock is set forward by a little now and then, as after each pause of a virtual machine. In a year
        the times in answers would be far behind those of callers.
        """
        now = self._elapsed()
        passed, self._kept_up = now - self._kept_up, now
        self.follow(self._wall(), most=_CATCH_UP * passed)

    @property
    def ahead(self) -> float:
        """How many seconds the wall clock is behind."""
        return self() - self._wall()

    def mark(self) -> Mark:
        """Return the present moment, for a store to keep."""
        return Mark(self(), self._boot())

    def continue_from(self, mark: Mark) -> None:
        """Move the clock forward to where an earlier process's clock would be now, if the wall clock was set back.

        How long ago the mark was set is known until the machine starts anew; then the clock is not below the mark.
        """
        boot = self._boot()
        since = boot.seconds - mark.boot.seconds if boot.name and boot.name == mark.boot.name else 0.0
        self.never_below(mark.time + max(0.0, since))

    def set_to(self, time: float) -> None:
        """Set the clock to the time of a server, whose clock all its clients go by."""
        self._offset = time - self._elapsed()
