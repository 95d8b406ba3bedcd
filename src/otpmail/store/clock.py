"""The store's clock: wall time that outlives the process, and never runs backwards."""

import time
from collections.abc import Callable


class StoreClock:
    """Seconds since the epoch: the wall clock at the start, and from then on the time that has passed.

    A wall clock that is set back or forward meanwhile neither revives a code nor ends it early.
    """

    def __init__(self, *, wall: Callable[[], float] = time.time, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._elapsed = elapsed
        self._offset = wall() - elapsed()

    def __repr__(self) -> str:
        return f"<StoreClock {self():.3f}>"

    def __call__(self) -> float:
        """Return the time in seconds since the epoch."""
        return self._offset + self._elapsed()

    def never_below(self, stored: float) -> None:
        """Move the clock forward to the greatest time that a store holds, where the wall clock was set back since."""
        self._offset = max(self._offset, stored - self._elapsed())

    def set_to(self, time: float) -> None:
        """Set the clock to the time of a server, whose clock all its clients go by."""
        self._offset = time - self._elapsed()
