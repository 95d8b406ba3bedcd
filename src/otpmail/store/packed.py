"""A table of small values in few objects, for a million of them in little memory. No I/O.

A dict takes 160 octets for a key of 16 beside its value. Here some tens of keys lie in one string of octets, and their
values, each behind its length, in another.
"""

from collections.abc import Callable, Iterable, Iterator

KEY_OCTETS = 16
MOST_VALUE = 255
"""Octets of a value at most: its length is one octet."""

BUCKETS = 1 << 14
"""How many parts `PackedTable.sweep` goes round; those of one first octet of a key lie together."""

_OF_AN_OCTET = BUCKETS >> 8
_BUCKET_OCTETS = 128  # of two strings of octets beside them, and what their allocation rounds up


class PackedTable:
    """Values by keys of 16 octets that nobody can choose, such as digests with a key.

    `count` is the number of values, `octets` the memory that they take: plain numbers, since a hot path reads them.
    """

    def __init__(self) -> None:
        self._keys: list[bytes] = [b""] * BUCKETS
        self._values: list[bytes] = [b""] * BUCKETS
        self.count = 0
        self.octets = 0

    def __repr__(self) -> str:
        return f"<PackedTable {self.count} values in {self.octets} octets>"

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, None where it has none."""
        place = key[0] * _OF_AN_OCTET + key[1] % _OF_AN_OCTET
        # fast path: nearly every key has no value, 1 us; held to a dict by tests/store/test_packed.py
        if key not in self._keys[place]:
            return None
        return next((value for known, value in self._items(place) if known == key), None)

    def set(self, key: bytes, value: bytes) -> None:
        """Give a key a value of at most MOST_VALUE octets, in place of the one that it has."""
        self.discard(key)
        place = _place(key)
        self._keep(place, self._keys[place] + key, self._values[place] + bytes((len(value),)) + value)

    def discard(self, key: bytes) -> None:
        """Take a key out, if it is there."""
        place = _place(key)
        if key in self._keys[place]:
            self._fill(place, [item for item in self._items(place) if item[0] != key])

    def replace(self, octet: int, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Take out all keys that begin with an octet, and put these in."""
        first = octet * _OF_AN_OCTET
        places: list[list[tuple[bytes, bytes]]] = [[] for _ in range(_OF_AN_OCTET)]
        for item in items:
            places[_place(item[0]) - first].append(item)
        for number, some in enumerate(places):
            self._fill(first + number, some)

    def items(self, octet: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield all keys that begin with an octet, with their values."""
        for place in range(octet * _OF_AN_OCTET, (octet + 1) * _OF_AN_OCTET):
            yield from self._items(place)

    def search(self, start: int, most: int) -> Iterator[tuple[int, list[tuple[bytes, bytes]]]]:
        """Yield buckets that have values, and which they are, from one on round the table, until there were `most`."""
        seen = 0
        for number in range(start, start + BUCKETS):
            place = number % BUCKETS
            if self._keys[place]:
                yield place, (items := list(self._items(place)))
                seen += len(items)
                if seen >= most:
                    return

    def sweep(self, is_over: Callable[[bytes], bool], start: int, buckets: int) -> list[bytes]:
        """Take the keys out of some buckets whose values are over, and return those keys."""
        over: list[bytes] = []
        for place in range(start, start + buckets):
            over += [key for key, value in self._items(place % BUCKETS) if is_over(value)]
        for key in over:
            self.discard(key)
        return over

    def _items(self, place: int) -> Iterator[tuple[bytes, bytes]]:
        keys, values, at = self._keys[place], self._values[place], 0
        for start in range(0, len(keys), KEY_OCTETS):
            end = at + 1 + values[at]
            yield keys[start : start + KEY_OCTETS], values[at + 1 : end]
            at = end

    def _fill(self, place: int, items: list[tuple[bytes, bytes]]) -> None:
        values = [bytes((len(value),)) + value for _, value in items]
        self._keep(place, b"".join([key for key, _ in items]), b"".join(values))

    def _keep(self, place: int, keys: bytes, values: bytes) -> None:
        before, taken = self._keys[place], self._values[place]
        self._keys[place], self._values[place] = keys, values
        self.count += (len(keys) - len(before)) // KEY_OCTETS
        self.octets += len(keys) + len(values) - len(before) - len(taken)
        self.octets += _BUCKET_OCTETS * (bool(keys) - bool(before))


def _place(key: bytes) -> int:
    return key[0] * _OF_AN_OCTET + key[1] % _OF_AN_OCTET
