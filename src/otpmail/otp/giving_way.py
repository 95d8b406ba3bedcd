"""Tells of codes that gave way to those of another caller, where there was no room for all."""

from collections.abc import Callable
from math import inf

from otpmail.events import CodesGiveWay, Observer

_AGAIN_SECONDS = 60.0


class GivingWay:
    """Notifies the observer of each time, and says whether there was one within a minute. `now` is in seconds."""

    def __init__(self, observer: Observer, now: Callable[[], float]) -> None:
        self._observer = observer
        self._now = now
        self._last = -inf

    def __repr__(self) -> str:
        return f"<GivingWay, last at {self._last}>"

    def __call__(self, caller: str, other: str, count: int) -> None:
        """Tell that so many records of `other` gave way to one of `caller`."""
        last, self._last = self._last, self._now()
        self._observer.notify(CodesGiveWay(caller, other, count, self._last - last < _AGAIN_SECONDS))
