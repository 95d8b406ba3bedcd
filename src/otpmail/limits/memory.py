"""One budget of octets, MEMORY_MAX_MB: what is read, unsettled, remembered, and kept of codes and addresses. Pure.

The octets of each thing were measured, see docs/memory.md. gRPC's own buffers and the program itself are not
counted.
"""

from contextvars import ContextVar
from typing import Protocol

from otpmail.errors import MemoryFull
from otpmail.settings import FOR_REQUESTS

MAIL_OCTETS = 4096
"""Octets of an unsettled mail beside its content: job, timers, its place in the queue, the call that waits for it."""

RECIPIENT_OCTETS = 400
"""Octets of each of its recipients: the address as it came and in its wire form, and the relay's reply."""

LABEL_OCTETS = 200
"""Octets of each of its labels beside the characters: two strings and their pair."""

CALL_OCTETS = 20 << 10
"""Octets of a running call beside its request, most of them in gRPC."""

LARGE = 64 << 10
"""Octets of a request from which on it counts READ_FACTOR times until its mail is accepted."""

HEAD_OCTETS = 512
"""Octets of metadata, frames and TLS that a connection may bring beside a request."""

READ_FACTOR = 3
"""How many times its own size a large request takes until its mail is written: raw, parsed, checked, encoded."""

_FOR_CODES = 8  # an eighth of the budget is for codes and checks
_FOR_RECORDS = 2  # half of it for code records, so that no flood of codes leaves nothing for mails
_FOR_CALLS = 2  # half of it for calls that run, with their requests


class Held:
    """A large request of `octets`: READ_FACTOR times as many count as being read until `release`.

    That is when its mail is accepted, or its call ends.
    """

    __slots__ = ("_memory", "_octets")

    def __init__(self, memory: "Memory", octets: int) -> None:
        self._memory = memory
        self._octets = octets
        memory.reading += READ_FACTOR * octets
        memory.ahead += (READ_FACTOR - 1) * octets

    def release(self) -> None:
        """Count it no more; without effect the second time."""
        self._memory.reading -= READ_FACTOR * self._octets
        self._memory.ahead -= (READ_FACTOR - 1) * self._octets
        self._octets = 0


HELD: ContextVar[Held | None] = ContextVar("HELD", default=None)
"""The memory of the large request in whose task code runs, None for small ones."""


class Counted(Protocol):
    """Things that count their own octets (`store.memory`)."""

    @property
    def octets(self) -> int:
        """Octets that they take."""


class _Nothing:
    """Takes no memory."""

    octets = 0

    def forget_oldest(self) -> bool:
        """Return False: nothing is left."""
        return False


NOTHING = _Nothing()
"""Stands for things that are not there."""


class Remembered(Counted, Protocol):
    """Things that can be forgotten when memory is short."""

    def forget_oldest(self) -> bool:
        """Forget what is oldest, a part of the whole; False where nothing is left."""


class Memory:
    """The budget of `limit` octets. Its parts are plain numbers, which those that take octets add to and subtract from.

    `reading` are requests of calls that run, `unsettled` accepted mails until they settle, `codes` code records, and
    `addresses` what is known of addresses. Of `reading`, large requests take what is `ahead` only while they are
    written, two at a time.
    """

    def __init__(self, limit: int, remembered: Remembered, codes: Counted, addresses: Counted | None = None) -> None:
        self.limit = limit
        self.for_mails = limit - limit // _FOR_CODES
        self.for_reading = limit // FOR_REQUESTS
        self.for_calls = limit // _FOR_CALLS
        self.for_records = limit // _FOR_RECORDS
        self.reading = 0
        self.ahead = 0
        self.arrived: dict[str, int] | None = None
        """Octets of the requests of each peer since a flood is looked for, with their heads. None if none is."""
        self.unsettled = 0
        self.remembered = remembered
        self.codes = codes
        self.addresses = addresses or NOTHING

    def __repr__(self) -> str:
        return f"<Memory {self.used()} of {self.limit} octets>"

    def used(self) -> int:
        """Return how many octets are taken."""
        return self.reading + self.unsettled + self.remembered.octets + self.codes.octets + self.addresses.octets

    def parts(self) -> dict[str, int]:
        """Return the octets by what takes them."""
        return {
            "reading": self.reading,
            "unsettled": self.unsettled,
            "remembered": self.remembered.octets,
            "codes": self.codes.octets,
            "addresses": self.addresses.octets,
        }

    def make_room(self, octets: int = 0, *, code: bool = False) -> None:
        """Make room for `octets` more, for a mail or a `code`: what is remembered gives way first.

        Requests that are being read count for mails alone, since streams may read more than their part for a moment.
        Raises MemoryFull.
        """
        fits = self._has_room(octets, self.limit) if code else self._has_room(octets + self.reading, self.for_mails)
        if not fits:
            raise MemoryFull

    def take_in(self, octets: int) -> bool:
        """Count octets more of a request that no call counts yet. Returns whether calls have so much left."""
        if octets > 0 and self.reading + octets > self.for_calls:
            return False
        self.reading += octets
        return True

    def has_room_for_stream(self) -> bool:
        """Whether a mail of a stream fits, for which what is remembered gives way too.

        Its batch is being read already, and is gone once its mails are accepted. So of what is being read no more than
        a quarter of the budget counts here. Otherwise streams whose batches take all of it would wait for each other.
        """
        return self._has_room(min(self.reading, self.for_reading), self.for_mails)

    def _has_room(self, others: int, most: int) -> bool:
        others += self.unsettled + self.addresses.octets
        while others + self.remembered.octets + self.codes.octets > most:
            if not self.remembered.forget_oldest():
                return False
        return True
