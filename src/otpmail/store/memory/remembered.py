"""Octets that are remembered for a while: the oldest are forgotten first, many at a time."""

from collections import deque
from collections.abc import Iterator
from math import inf
from sys import maxsize

_SLICES = 4  # each is one more place to look for a request id that has not come before
_ENTRY_OCTETS = 250  # a key, two object headers and a place in a dict


class _Slice:
    """Values that came together, the octets they take, and when the first of them came."""

    __slots__ = ("begun", "octets", "values")

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.octets = 0
        self.values: dict[str, bytes] = {}


class Remembered:
    """Octets by key, each for at least `seconds`, at most `most` of them, which take about `most_octets` together.

    They are kept in slices by the time they came, and a slice is forgotten whole. A dict whose first keys are removed
    one by one would be searched from its beginning each time. `get` may therefore find a value that is past its time.
    `octets` is what all take in memory, a value that came twice twice.
    """

    def __init__(self, *, seconds: float, most: int, most_octets: int = maxsize) -> None:
        self._seconds = seconds
        self._most = most
        self._most_octets = most_octets
        self._most_in_slice = max(1, most // _SLICES)
        self._most_octets_in_slice = most_octets // _SLICES
        self._slices: deque[_Slice] = deque()
        self._newest = _Slice(-inf)
        self._closes = -inf  # when the newest slice takes no more
        self._count = 0
        self.octets = 0

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<Remembered {len(self)} in {len(self._slices)} slices>"

    def add(self, key: str, value: bytes, now: float) -> None:
        """Remember `value`; `now` is in seconds and never runs backwards."""
        newest = self._newest
        if self._count >= self._most or self.octets >= self._most_octets:
            self._forget_excess()
        values = newest.values
        if now >= self._closes or len(values) >= self._most_in_slice or newest.octets >= self._most_octets_in_slice:
            newest = self._open_slice(now)
            values = newest.values
        octets = len(value) + _ENTRY_OCTETS
        newest.octets += octets
        self.octets += octets
        if key not in values:
            self._count += 1
        values[key] = value

    def get(self, key: str) -> bytes | None:
        """Return the latest value of that key, None where none is remembered."""
        for kept in reversed(self._slices):
            if key in kept.values:
                return kept.values[key]
        return None

    def discard(self, key: str) -> None:
        """Forget all values of that key."""
        for kept in self._slices:
            value = kept.values.pop(key, None)
            if value is not None:
                octets = len(value) + _ENTRY_OCTETS
                kept.octets -= octets
                self.octets -= octets
                self._count -= 1

    def batches(self, octets: int) -> Iterator[list[tuple[str, bytes]]]:
        """Yield all that is remembered now, about so many octets at a time. Entries between two steps are left out."""
        for kept in list(self._slices):
            batch: list[tuple[str, bytes]] = []
            size = 0
            for key, value in list(kept.values.items()):
                batch.append((key, value))
                size += len(value) + _ENTRY_OCTETS
                if size >= octets:
                    yield batch
                    batch, size = [], 0
            yield batch

    def forget_oldest(self) -> bool:
        """Forget the oldest slice; return False where nothing is remembered."""
        if not self._slices:
            return False
        oldest = self._slices.popleft()
        self._count -= len(oldest.values)
        self.octets -= oldest.octets
        if oldest is self._newest:
            self._newest, self._closes = _Slice(-inf), -inf
        return True

    def _forget_excess(self) -> None:
        while len(self._slices) > 1 and (self._count >= self._most or self.octets >= self._most_octets):
            self.forget_oldest()

    def _open_slice(self, now: float) -> _Slice:
        length = self._seconds / _SLICES
        while self._slices and (self._slices[0].begun + length + self._seconds <= now or self._count >= self._most):
            self.forget_oldest()
        self._newest = _Slice(now)
        self._slices.append(self._newest)
        self._closes = now + length
        return self._newest
