"""Whose the settled mails of a file are: where there are too many, the caller with most of them loses its oldest.

It is in the memory of the writer thread. Rows of an earlier process are read only where there are too many.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import count as numbers_from
from sqlite3 import Connection

from otpmail.errors import StoreError
from otpmail.store import codec
from otpmail.store.sqlite.packs import Packs
from otpmail.store.sqlite.requests import request_key
from otpmail.store.sqlite.series import Series

_NOBODY = 0
"""The caller of a place without a mail, as where that was moved to another place."""

_UNREADABLE = 1
"""The caller of mails that can't be read, as without their key: these are not moved."""

_FEW = 64
_LEARNT_AT_ONCE = 4096  # mails: some hundredths of a second
_IDS = "SELECT place FROM remembered WHERE place >= ? AND place < ?"
_MOVED = "SELECT key, place FROM request WHERE seq < 0"
_ROWS = """
SELECT place, mails, id, records FROM settled
WHERE place >= coalesce((SELECT max(place) FROM settled WHERE place <= :first), :first)
AND place < :top AND place + mails > :first
ORDER BY place LIMIT :most
"""
"""From the row on that has a place: it may have been merged with those before."""


class _Owners:
    """The callers of the mails of one sequence, as numbers, from the place `start` on."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.numbers = array("I")

    def __repr__(self) -> str:
        return f"<_Owners from {self.start} to {self.end}>"

    @property
    def end(self) -> int:
        """The place behind those that are known."""
        return self.start + len(self.numbers)

    def add(self, place: int, number: int) -> None:
        """Note the next place; those between have no mail."""
        self.numbers.extend([_NOBODY] * (place - self.end))
        self.numbers.append(number)

    def clear(self, place: int) -> int:
        """Note that a place has no mail any more, and return whose it was."""
        number = self.numbers[place - self.start]
        self.numbers[place - self.start] = _NOBODY
        return number

    def between(self, first: int, end: int) -> Sequence[int]:
        """Return the numbers of places that are known."""
        return self.numbers[max(0, first - self.start) : max(0, end - self.start)]

    def drop_before(self, place: int) -> None:
        """Forget the first places."""
        del self.numbers[: max(0, place - self.start)]
        self.start = max(place, self.start)


class CallerCounts:
    """How many mails each caller has: of those that their ids find, and `requests`, that a request id finds.

    `passed` is the place before which mails with a request id count no more.
    """

    def __init__(self, plain: Series, requested: Series) -> None:
        self._both = plain, requested
        self._owners = _Owners(plain.first), _Owners(requested.first)
        self._numbers: dict[str | None, int] = {None: _UNREADABLE}
        self._new_numbers = numbers_from(_UNREADABLE + 1)
        self._most_numbers = _FEW
        self.passed = requested.first
        self._ids_of: tuple[Counter[int], Counter[int]] = Counter(), Counter()
        self.requests: Counter[int] = Counter()

    def __repr__(self) -> str:
        return f"<CallerCounts of {len(self._numbers)} callers>"

    def add(self, place: int, caller: str, *, requested: bool) -> None:
        """Count the mail that comes to the next place, unless earlier ones are not known yet."""
        owners = self._owners[requested]
        if owners.end != place:
            return
        # fast path: `_count` for each mail, 0.4 us; held to `learn` by tests/store/sqlite/test_caller_counts.py
        number = self._numbers.get(caller) or self._number(caller)
        owners.numbers.append(number)
        self._ids_of[requested][number] += 1
        if requested:
            self.requests[number] += 1

    def remove(self, place: int) -> None:
        """Count the mail at a place no more, which is gone."""
        requested = place >= self._both[1].base
        owners = self._owners[requested]
        if not owners.start <= place < owners.end:
            return
        number = owners.clear(place)
        if number != _NOBODY and place >= self._both[requested].remembered:
            self._count_id(number, -1, requested=requested)
        if requested and place >= self.passed:
            self._subtract(self.requests, [number])

    def learn(self, connection: Connection, packs: Packs) -> bool:
        """Read whose the mails of an earlier process are, some at a time; returns whether all are known."""
        known = True
        # Mails that were moved lie in their old rows too, until these are deleted.
        moved: dict[int, int] = dict(connection.execute(_MOVED).fetchall())
        for requested, (series, owners) in enumerate(zip(self._both, self._owners, strict=True)):
            left = _LEARNT_AT_ONCE
            bounds = {"first": owners.end, "top": series.top, "most": _LEARNT_AT_ONCE}
            for place, mails, mail_id, records in connection.execute(_ROWS, bounds):
                ids = {one for (one,) in connection.execute(_IDS, (place, place + mails))}
                for at, (caller, request_id) in enumerate(_senders(packs, place, mails, mail_id, records), place):
                    if at < owners.end:
                        continue
                    if moved and moved.get(request_key(caller or "", request_id), at) != at:
                        owners.add(at, _NOBODY)
                    else:
                        self._count(at, caller, requested=bool(requested), has_id=at in ids)
                left -= mails
                if left <= 0:
                    break
            known &= left > 0
        return known

    def _number(self, caller: str | None) -> int:
        number = self._numbers.get(caller)
        if number is None:
            number = self._numbers[caller] = next(self._new_numbers)
        return number

    def _count(self, place: int, caller: str | None, *, requested: bool, has_id: bool) -> None:
        number = self._number(caller)
        self._owners[requested].add(place, number)
        if has_id:
            self._count_id(number, 1, requested=requested)
        if requested and place >= self.passed:
            self.requests[number] += 1

    @property
    def total(self) -> int:
        """How many mails their ids find."""
        return sum(ids.total() for ids in self._ids_of)

    def each(self) -> Iterable[int]:
        """Return of how many mails of each caller that is."""
        return (self._ids_of[0] + self._ids_of[1]).values()

    def _ids(self, number: int) -> int:
        plain, requested = self._ids_of
        return plain[number] + requested[number]

    def forget_ids(self, first: int, end: int, *, requested: bool) -> None:
        """Count the mails between two places no more among those that their ids find."""
        numbers = self._owners[requested].between(first, end)
        self._subtract(self._ids_of[requested], numbers)

    def forget_rows(self) -> None:
        """Forget the places before the first rows that are there."""
        requested = self._both[1]
        if requested.first > self.passed:
            self._subtract(self.requests, self._owners[1].between(self.passed, requested.first))
            self.passed = requested.first
        for series, owners in zip(self._both, self._owners, strict=True):
            owners.drop_before(series.first)
        if len(self._numbers) > self._most_numbers:  # certificates may name ever new callers
            self._numbers = {name: one for name, one in self._numbers.items() if one == _UNREADABLE or self._has(one)}
            for counts in (*self._ids_of, self.requests):
                for number in [number for number, mails in counts.items() if not mails]:
                    del counts[number]
            self._most_numbers = max(_FEW, 2 * len(self._numbers))

    def _has(self, number: int) -> bool:
        return bool(self._ids(number) or self.requests[number])

    def over(self, least: int) -> list[int]:
        """Return the callers with more ids than that."""
        return [number for number in self._ids_of[0] | self._ids_of[1] if self.is_over(number, least)]

    def is_over(self, number: int, least: int) -> bool:
        """Whether a caller has more ids than that; mails that can't be read count as too many."""
        return self._ids(number) > least or number == _UNREADABLE

    def has_any(self, callers: Iterable[int], *, requested: bool) -> bool:
        """Whether ids find mails of these callers among those without, or with, a request id."""
        ids = self._ids_of[requested]
        return any(ids[number] > 0 for number in callers)

    def pass_ids(self, series: Series, end: int, excess: int, level: int) -> list[int]:
        """Pass over places up to `end` until so many mails are forgotten; returns those of callers with few.

        `series.remembered` is behind them then. The rows that are returned count no more, and are to be added again.
        """
        requested = series is self._both[1]
        owners = self._owners[requested]
        spared: list[int] = []
        for place, number in enumerate(owners.between(series.remembered, end), series.remembered):
            if excess <= 0:
                break
            series.remembered = place + 1
            if number == _NOBODY:
                continue
            if self.is_over(number, level):
                excess -= 1
            else:
                spared.append(place)
                owners.clear(place)
                if requested and place >= self.passed:
                    self.requests[number] -= 1
            self._count_id(number, -1, requested=requested)
        return spared

    def pass_requests(self, end: int, most: int, level: int) -> list[int]:
        """Pass over the oldest mails with a request id in the same way, up to `end`, while there are more than `most`.

        `passed` is behind them then.
        """
        owners, requested = self._owners[1], self._both[1]
        excess = self.requests.total() - most
        spared: list[int] = []
        for place, number in enumerate(owners.between(self.passed, end), self.passed):
            if excess <= 0:
                break
            self.passed = place + 1
            if number == _NOBODY:
                continue
            if place >= requested.remembered:
                self._count_id(number, -1, requested=True)
            if number == _UNREADABLE or self.requests[number] > level:
                excess -= 1
            else:
                spared.append(place)
                owners.clear(place)
            self.requests[number] -= 1
        requested.remembered = max(requested.remembered, self.passed)
        return spared

    def _count_id(self, number: int, change: int, *, requested: bool) -> None:
        self._ids_of[requested][number] += change

    def _subtract(self, counts: Counter[int], numbers: Iterable[int]) -> None:
        counts.subtract(numbers)
        counts.pop(_NOBODY, None)


def _senders(
    packs: Packs, place: int, mails: int, mail_id: str | None, records: bytes
) -> Sequence[tuple[str | None, str]]:
    """Return the callers and request ids of the mails of a row; None for those of one that can't be read."""
    with suppress(StoreError, ValueError):
        return [codec.sender_of(octets) for octets in packs.open(place, mails, mail_id, records)]
    return [(None, "")] * mails
