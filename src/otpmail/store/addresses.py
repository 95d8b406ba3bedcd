"""The protocol of a store's records of addresses, and the table of them that each process has in memory.

A mail asks for each of its recipients, so every store answers from memory. A file is read when it is opened, and a
server of several replicas announces each change to all of them.
"""

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import islice
from math import inf
from operator import itemgetter
from typing import NamedTuple, Protocol

from otpmail.store.address_codec import decode_address, encode_address, mark_in, mark_of
from otpmail.store.packed import BUCKETS, KEY_OCTETS, PackedTable
from otpmail.suppression import AddressRecord

Rule = Callable[[AddressRecord | None], AddressRecord | None]
"""A rule of `limits.suppressing`: returns what is known of an address from now on, None for nothing. It is pure."""

_log = logging.getLogger("otpmail")

_SWEPT = 8  # buckets that are swept at a time
_SEARCHED = 8  # buckets that are searched for records that are over, where there is no room: a millisecond
_LOOKED_AT = 512  # records that are searched for one that may give way
_MOST_EVICTED = 5  # of the smallest ones, for one of the largest


class CallersAddress(NamedTuple):
    """An address of a caller, in the form under which it is kept (`Address.key`)."""

    caller: str
    address: str


class Changed(NamedTuple):
    """A record of an address before and after a rule. `is_full`: there was no room for it, so nothing changed."""

    before: AddressRecord | None
    after: AddressRecord | None
    is_full: bool = False
    evicted: "Evicted | None" = None
    """The records of another caller that were evicted for it."""


class Evicted(NamedTuple):
    """Evicted records by their keys, and whose they were; the caller is empty if it is not known here."""

    names: tuple[bytes, ...]
    caller: str
    octets: tuple[bytes, ...] = ()
    """The records themselves, to put them back."""

    def __repr__(self) -> str:
        return f"<Evicted {self.names!r} of {self.caller!r}>"


class AddressStore(Protocol):
    """The records of addresses, by caller.

    `count` is of how many addresses, `octets` the memory of this process that it takes. `latest` is when an address was
    suppressed last, in seconds since the epoch. All three are plain numbers: a hot path reads them.
    """

    count: int
    octets: int
    latest: float
    report: Callable[[str, Evicted], None]
    """Called with a caller, and what was evicted for a record of it without being in a `Changed`."""

    def now(self) -> float:
        """Return the time in seconds since the epoch, on the clock of every time in a record."""

    def find(self, whose: CallersAddress) -> AddressRecord | None:
        """Return what this process knows. It learns of a change in another one a moment later."""

    def note(self, whose: CallersAddress, rule: Rule) -> Changed:
        """Apply a rule in this process at once. The store writes it later, together with others."""

    async def update(self, whose: CallersAddress, rule: Rule) -> Changed:
        """Apply a rule; durable on return. Raises Unavailable while the store takes no changes."""

    async def read(self, whose: CallersAddress) -> AddressRecord | None:
        """Return what the store knows, changes of other processes included. Raises Unavailable."""


class AddressTable:
    """The addresses that this process knows: `most` of them at most, in `most_octets` of memory.

    A key is a digest of caller and address with the first of `keys`; each of the others may have been the first before.
    Where there is no room, a record gives way that is over. Without any, one of the caller with most gives way to that
    of a caller with fewer. So each has its share, and one that is alone has all of it.
    """

    def __init__(self, keys: Sequence[bytes], now: Callable[[], float], *, most: int, most_octets: int) -> None:
        self._keys = tuple(keys)
        self.now = now
        self._most, self._most_octets = most, most_octets
        self._packed = PackedTable()
        self._searched = 0
        self._shares: Counter[bytes] = Counter()  # how many records each caller has, by its mark
        self._callers: dict[bytes, str] = {}  # by their marks, those that this process has seen
        self.count = self.octets = 0
        self.latest = -inf
        self.report: Callable[[str, Evicted], None] = _report_nothing

    def __repr__(self) -> str:
        return f"<AddressTable {self._packed!r}>"

    def names(self, whose: CallersAddress) -> list[bytes]:
        """Return the keys that an address may have, the one to write first."""
        text = f"{whose.caller}\0{whose.address}".encode()
        return [hashlib.blake2b(text, digest_size=KEY_OCTETS, key=key).digest() for key in self._keys]

    def find(self, whose: CallersAddress) -> AddressRecord | None:
        """Return the record of an address, None without one or after its end."""
        for name in self.names(whose):
            octets = self._packed.get(name)
            if octets is not None:
                record = decode_address(octets, whose.address)
                return record if record.ends > self.now() else None
        return None

    def apply(self, whose: CallersAddress, rule: Rule) -> Changed:
        """Apply `rule` to the record of an address."""
        before = self.find(whose)
        after = rule(before)
        if after is None:
            for name in self.names(whose):
                self._set(name, b"")
        elif after != before:
            evicted = None
            is_short = before is None and not self.has_room()
            if is_short and (evicted := self.make_room(whose.caller)) is None:
                return Changed(before, before, is_full=True)
            name, *others = self.names(whose)
            for other in others:
                self._set(other, b"")
            octets = self.encode(whose, after)
            self._set(name, octets)
            self.latest = self.now()
            after = decode_address(octets, whose.address)  # a long reason is cut
            self._count()
            return Changed(before, after, evicted=evicted)
        self._count()
        return Changed(before, after)

    def encode(self, whose: CallersAddress, record: AddressRecord) -> bytes:
        """Return the octets of a record, which say whose it is."""
        mark = mark_of(whose.caller)
        self._callers[mark] = whose.caller
        return encode_address(record, whose.address, mark)

    def make_room(self, caller: str) -> Evicted | None:
        """Forget what the caller with most has more than this one, as many records as one takes; None without any."""
        mark = mark_of(caller)
        most, count = max(self._shares.items(), key=itemgetter(1), default=(mark, 0))
        keys: list[bytes] = []
        values: list[bytes] = []
        while count > self._shares[mark] + 1 and len(keys) < _MOST_EVICTED and (key := self._find(most)):
            keys.append(key)
            values.append(self._packed.get(key) or b"")
            self._set(key, b"")
            self._count()
            count -= 1
            if self.count < self._most and self.octets < self._most_octets:
                break
        return Evicted(tuple(keys), self._callers.get(most, ""), tuple(values)) if keys else None

    def put_back(self, evicted: Evicted) -> None:
        """Know again what was evicted for a record that could not be kept. A record that has come meanwhile stays."""
        for name, octets in zip(evicted.names, evicted.octets, strict=True):
            if self._packed.get(name) is None:
                self._set(name, octets)
        self._count()

    def _find(self, mark: bytes) -> bytes:
        """Return the key of a record of a caller, the one that ends first of some that lie together.

        It is looked for among some hundreds of records, of which the caller with most has its part. Empty without any.
        """
        for place, items in self._packed.search(self._searched, _LOOKED_AT):
            found = [(decode_address(octets).ends, name) for name, octets in items if mark_in(octets) == mark]
            self._searched = place
            if found:
                return min(found)[1]
        return b""

    def put(self, name: bytes, octets: bytes) -> bool:
        """Take over what another process, or the store, knows under a key; empty for nothing. False without room."""
        if not octets or _has_ended(self.now(), octets):  # an announcement may come after the sweep
            self._set(name, b"")
        elif self._packed.get(name) is None and not self.has_room():
            return False
        else:
            self._set(name, octets)
            self.latest = self.now()
        self._count()
        return True

    def replace(self, octet: int, found: Mapping[bytes, bytes], fresh: Collection[bytes] = ()) -> int:
        """Take over all that the store knows under keys that begin with an octet, but for `fresh` ones, which stay.

        Returns for how many there is no room.
        """
        kept = {name: value for name in fresh if name[0] == octet and (value := self._packed.get(name)) is not None}
        kept |= {name: value for name, value in found.items() if name not in fresh}
        for _, known in self._packed.items(octet):
            self._take(mark_in(known))
        self._packed.replace(octet, ())
        self._count()
        room = self._most - self.count if self.octets < self._most_octets else 0
        self._packed.replace(octet, islice(kept.items(), room))
        self._shares.update(mark_in(octets) for _, octets in self._packed.items(octet))
        self._count()
        self.latest = self.now()
        return max(0, len(kept) - room)

    async def sweep(self) -> AsyncIterator[list[bytes]]:
        """Forget the records that have ended, and yield their keys, a part of the table at a time."""
        for start in range(0, BUCKETS, _SWEPT):
            now = self.now()
            ended = self._packed.sweep(self._dropping(partial(_has_ended, now)), start, _SWEPT)
            self._count()
            yield ended
            await asyncio.sleep(0)  # other tasks have the loop meanwhile

    def has_room(self) -> bool:
        """Whether a further address may be known. A record that is over gives way."""
        if self.count < self._most and self.octets < self._most_octets:
            return True
        now = self.now()
        self._searched = (self._searched + _SEARCHED) % BUCKETS
        self._packed.sweep(self._dropping(partial(_is_over, now)), self._searched, _SEARCHED)
        self._count()
        return self.count < self._most and self.octets < self._most_octets

    def _set(self, name: bytes, octets: bytes) -> None:
        """Give a key its record, or take the one that it has out."""
        if (before := self._packed.get(name)) is not None:
            self._take(mark_in(before))
            self._packed.discard(name)
        if octets:
            self._shares[mark_in(octets)] += 1
            self._packed.set(name, octets)

    def _dropping(self, is_over: Callable[[bytes], bool]) -> Callable[[bytes], bool]:
        """Return the condition of a sweep, which takes what is over from the share of its caller."""

        def drops(octets: bytes) -> bool:
            """Whether a record is over."""
            found = is_over(octets)
            if found:
                self._take(mark_in(octets))
            return found

        return drops

    def _take(self, mark: bytes) -> None:
        """Count a record of a caller no more."""
        self._shares[mark] -= 1
        if not self._shares[mark]:
            del self._shares[mark]

    def _count(self) -> None:
        self.count, self.octets = self._packed.count, self._packed.octets


def _report_nothing(caller: str, evicted: Evicted) -> None:
    """Do nothing: nobody asks."""


def _has_ended(now: float, octets: bytes) -> bool:
    return decode_address(octets).ends <= now


def _is_over(now: float, octets: bytes) -> bool:
    return decode_address(octets).is_over(now)


def log_left_out(count: int) -> None:
    """Log how many addresses the store knows that have no room in this process, if there are any."""
    if count:
        text = "no room for %d of the suppressed addresses of the store; their mails are sent (SUPPRESSIONS_MAX)"
        _log.warning(text, count, extra={"event": "addresses-left-out", "fields": {"addresses": count}})
