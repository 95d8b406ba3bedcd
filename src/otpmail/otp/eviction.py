"""Reports evictions: without room, records of codes of the caller with most make room for those of another."""

from collections.abc import Callable
from math import inf

from otpmail.events import CodesEvicted, Observer

_AGAIN_SECONDS = 60.0


class EvictionReport:
    """Notifies the observer of each eviction, and says whether there was one within a minute. `now` is in seconds."""

    def __init__(self, observer: Observer, now: Callable[[], float]) -> None:
        self._observer = observer
        self._now = now
        self._last = -inf

    def __repr__(self) -> str:
        return f"<EvictionReport, last at {self._last}>"

    def __call__(self, caller: str, other: str, count: int) -> None:
        """Report that so many records of `other` were evicted for one of `caller`."""
        last, self._last = self._last, self._now()
        self._observer.notify(CodesEvicted(caller, other, count, self._last - last < _AGAIN_SECONDS))
