"""Octets that are remembered for a while: the oldest are forgotten first, many at a time."""

from collections import deque
from collections.abc import Callable, Iterator
from math import inf
from sys import maxsize

_SLICES = 4  # each is one more place to look for a request id that has not come before
_ENTRY_OCTETS = 250  # a key, two object headers and a place in a dict


class _Slice:
    """Values that came together, and when the first of them came; the octets they take once it is closed."""

    __slots__ = ("begun", "octets", "values")

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.octets = 0
        self.values: dict[str, bytes] = {}


class Remembered:
    """Octets by key, each for at least `seconds`, at most `most` of them, which take about `most_octets` together.

    They are kept in slices by the time they came, and a slice is forgotten whole. A dict whose first keys are removed
    one by one would be searched from its beginning each time. `get` may therefore find a value that is past its time.
    `octets` is what all take in memory, a value that came twice twice. Several such collections may share the octets:
    `parts` says how many, so that each makes slices that are small enough for it to have several.
    """

    def __init__(
        self, *, seconds: float, most: int, most_octets: int = maxsize, parts: Callable[[], int] = lambda: 1
    ) -> None:
        self._parts = parts
        self._seconds = seconds
        self._most = most
        self._most_octets = most_octets
        self._most_in_slice = max(1, most // _SLICES)
        self._most_octets_in_slice = most_octets // _SLICES
        self._slices: deque[_Slice] = deque()
        self._values: dict[str, bytes] = {}  # of the newest slice
        self._older = self._older_octets = 0  # values of the others, and what those take
        self.octets = 0
        # The newest slice takes values until then, and so many; one more needs a further slice, or an old one goes.
        self._closes, self._full, self._full_octets = -inf, 0, 0

    def __len__(self) -> int:
        return self._older + len(self._values)

    def __repr__(self) -> str:
        return f"<Remembered {len(self)} in {len(self._slices)} slices>"

    def add(self, key: str, value: bytes, now: float) -> None:
        """Remember `value`; `now` is in seconds and never runs backwards."""
        if now >= self._closes or len(self._values) >= self._full or self.octets >= self._full_octets:
            self._make_room(now)
        self._values[key] = value
        self.octets += len(value) + _ENTRY_OCTETS

    def get(self, key: str) -> bytes | None:
        """Return the latest value of that key, None where none is remembered."""
        for kept in reversed(self._slices):
            if key in kept.values:
                return kept.values[key]
        return None

    def replace(self, key: str, value: bytes, by: bytes) -> None:
        """Remember `by` in place of this very `value`, where it is still remembered under that key."""
        for kept in self._slices:
            if kept.values.get(key) is value:
                kept.values[key] = by
                grown = len(by) - len(value)
                self.octets += grown
                if kept.values is not self._values:
                    kept.octets += grown
                    self._older_octets += grown
        self._set_bounds()

    def discard(self, key: str) -> None:
        """Forget all values of that key."""
        for kept in self._slices:
            value = kept.values.pop(key, None)
            if value is not None:
                octets = len(value) + _ENTRY_OCTETS
                self.octets -= octets
                if kept.values is not self._values:
                    kept.octets -= octets
                    self._older -= 1
                    self._older_octets -= octets
        self._set_bounds()

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

    def has_ended(self, now: float) -> bool:
        """Whether nothing is remembered that is not past its time."""
        return not self._slices or self._closes + self._seconds <= now

    def forget_oldest(self) -> bool:
        """Forget the oldest slice; return False where nothing is remembered."""
        if not self._slices:
            return False
        oldest = self._slices.popleft()
        if oldest.values is self._values:
            self._values, self._closes, self.octets = {}, -inf, 0
        else:
            self._older -= len(oldest.values)
            self._older_octets -= oldest.octets
            self.octets -= oldest.octets
        self._set_bounds()
        return True

    def _make_room(self, now: float) -> None:
        while len(self._slices) > 1 and (len(self) >= self._most or self.octets >= self._most_octets):
            self.forget_oldest()
        octets = self.octets - self._older_octets
        if now >= self._closes or len(self._values) >= self._most_in_slice or octets >= self._most_octets_in_slice:
            self._open_slice(now)

    def _open_slice(self, now: float) -> None:
        length = self._seconds / _SLICES
        self._most_octets_in_slice = self._most_octets // (_SLICES * self._parts())
        while self._slices and (self._slices[0].begun + length + self._seconds <= now or len(self) >= self._most):
            self.forget_oldest()
        if self._slices:
            self._slices[-1].octets = self.octets - self._older_octets
        self._older, self._older_octets = len(self), self.octets
        newest = _Slice(now)
        self._slices.append(newest)
        self._values, self._closes = newest.values, now + length
        self._set_bounds()

    def _set_bounds(self) -> None:
        self._full = min(self._most_in_slice, self._most - self._older)
        self._full_octets = min(self._most_octets, self._older_octets + self._most_octets_in_slice)
