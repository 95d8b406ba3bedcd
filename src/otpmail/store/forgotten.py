"""Persons whom callers want forgotten: the mails that are open then settle without them."""

import asyncio
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import inf
from typing import NamedTuple

from otpmail.errors import LimitExceeded
from otpmail.model import HOUR, Mail
from otpmail.store.erasing import person_of, without

MOST_PERSONS = 10_000
"""How many persons of a caller may be forgotten while mails are open."""

_OCTETS = 300  # that a person takes here
_ENDED = 100  # persons who are dropped with each further one
_SLICE = 1000  # persons who are looked at in a turn of the loop: a tenth of a millisecond
_OWNER_OCTETS = 8
_REMEMBERED = 1024  # callers, whose digests are at hand


class Span(NamedTuple):
    """Since when a person is to be forgotten, and until when mails may be open that were so then.

    `owner` is a digest of the caller's name, empty for one that an earlier version has kept.
    """

    since: float
    until: float
    owner: bytes = b""


@lru_cache(_REMEMBERED)
def owner_of(caller: str) -> bytes:
    """Return the digest that stands for a caller in a `Span`."""
    return hashlib.blake2b(caller.encode(), digest_size=_OWNER_OCTETS).digest()


class Forgotten:
    """The persons by their names in the store, of which each has several: `names` returns them, the present one first.

    Mails that were accepted up to `latest` may have one of them: a plain number, which a hot path reads. A caller has
    `most` persons at a time.
    """

    def __init__(
        self, names: Callable[[bytes], Sequence[bytes]] = lambda person: (person,), *, most: int = MOST_PERSONS
    ) -> None:
        self.names = names
        self._most = most
        self._spans: OrderedDict[bytes, Span] = OrderedDict()  # the one that was put last is the last one
        self._counts: Counter[bytes] = Counter()  # how many persons an owner has
        self.latest = -inf

    def __repr__(self) -> str:
        return f"<Forgotten {len(self._spans)} persons>"

    @property
    def octets(self) -> int:
        """The memory that the persons take."""
        return len(self._spans) * _OCTETS

    def add(self, person: bytes, span: Span) -> bytes:
        """Forget a person; returns the name to keep in the store.

        Raises LimitExceeded where the caller has too many.
        """
        name = self.names(person)[0]
        self._drop_first_ended(span.since)
        if name not in self._spans and span.owner and self._counts[span.owner] >= self._most:
            text = f"mails of {self._most} persons whom this caller has forgotten may still be open: try again later"
            raise LimitExceeded("caller", text, retry_after=HOUR, setting="forgotten_persons")
        self.put(name, span)
        return name

    def put(self, name: bytes, span: Span) -> None:
        """Forget the person of a name that the store has."""
        known = self._spans.get(name)
        if known is not None and known.since > span.since:
            return
        self.drop(name)
        self._spans[name] = span
        self._counts[span.owner] += 1
        self.latest = max(self.latest, span.since)

    def drop(self, name: bytes) -> None:
        """Forget the person of a name no longer."""
        span = self._spans.pop(name, None)
        if span is not None:
            self._counts[span.owner] -= 1
            if not self._counts[span.owner]:
                del self._counts[span.owner]
        if not self._spans:
            self.latest = -inf

    async def sweep(self, now: float) -> None:
        """Drop the persons whose mails have all settled, in slices."""
        names = list(self._spans)
        for start in range(0, len(names), _SLICE):
            for name in names[start : start + _SLICE]:
                if name in self._spans and self._spans[name].until <= now:
                    self.drop(name)
            await asyncio.sleep(0)

    def left_of(self, mail: Mail) -> Mail | None:
        """Return a mail without the persons who are to be forgotten, None where it has none of them."""

        def is_gone(address: str) -> bool:
            """Whether an address is to be forgotten in a mail of that time."""
            for name in self.names(person_of(mail.caller, address)):
                if name in self._spans and mail.create_time <= self._spans[name].since:
                    return True
            return False

        return without(mail, is_gone) if self._spans else None

    def _drop_first_ended(self, now: float) -> None:
        """Drop those who were put first and have ended, some at a time."""
        for _ in range(_ENDED):
            name = next(iter(self._spans), None)
            if name is None or self._spans[name].until > now:
                return
            self.drop(name)
