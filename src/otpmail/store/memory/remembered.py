"""Octets that are remembered for a while: the oldest are forgotten first, many at a time."""

from collections import deque
from math import inf

_SLICES = 4  # each is one more place to look for a request id that has not come before


class Remembered:
    """Octets by key, each for at least `seconds`, at most `most` of them.

    They are kept in slices by the time they came, and a slice is forgotten whole. A dict whose first keys are removed
    one by one would be searched from its beginning each time. `get` may therefore find a value that is past its time.
    """

    def __init__(self, *, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._most_in_slice = max(1, most // _SLICES)
        self._slices: deque[dict[str, bytes]] = deque()
        self._begun: deque[float] = deque()  # when each slice was
        self._newest: dict[str, bytes] = {}
        self._closes = -inf  # when the newest slice takes no more
        self._in_older = 0  # values in the slices before the newest

    def __len__(self) -> int:
        return self._in_older + len(self._newest)

    def __repr__(self) -> str:
        return f"<Remembered {len(self)} in {len(self._slices)} slices>"

    def add(self, key: str, value: bytes, now: float) -> None:
        """Remember `value`; `now` is in seconds and never runs backwards."""
        while self._in_older and self._in_older + len(self._newest) >= self._most:
            self._forget_oldest()
        if now >= self._closes or len(self._newest) >= self._most_in_slice:
            self._open_slice(now)
        self._newest[key] = value

    def get(self, key: str) -> bytes | None:
        """Return the latest value of that key, None where none is remembered."""
        for kept in reversed(self._slices):
            value = kept.get(key)
            if value is not None:
                return value
        return None

    def _open_slice(self, now: float) -> None:
        length = self._seconds / _SLICES
        self._in_older += len(self._newest)
        self._newest = {}
        while self._slices and (self._begun[0] + length + self._seconds <= now or self._in_older >= self._most):
            self._forget_oldest()
        self._slices.append(self._newest)
        self._begun.append(now)
        self._closes = now + length

    def _forget_oldest(self) -> None:
        self._in_older -= len(self._slices.popleft())
        self._begun.popleft()
