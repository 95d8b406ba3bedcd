"""Decides whether a mail may come in now: the only place that does, by one reservation for each mail.

A reservation is a place among the QUEUE_SIZE mails that may be unsettled (`limits.places`), where there is memory for
one more mail (`limits.memory`). A call holds it from before any work is done for its mail until the mail is accepted.
Without a free place a single call is rejected, a stream waits (`mail.producer`).
"""

from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

from otpmail.callers import Call, Caller
from otpmail.counts import counted
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.queue import MailQueue
from otpmail.errors import QueueFull, RelayDown, ShareSpent, Stopping
from otpmail.limits.memory import Memory
from otpmail.mail.turns import Turns
from otpmail.model import Priority, WaitFor

PAUSE_SECONDS = 0.05
"""The longest pause of a stream before each turn, while the queue is above its high-water mark."""

_URGENT = Priority.URGENT  # naming a member takes its time
_LOOK_SECONDS = 1.0  # between two looks whether the relay is down, while a stream waits for a place


class RelayState(Protocol):
    """The relays as admission sees them (`relays.failover`)."""

    @property
    def down(self) -> bool:
        """Whether dialling has failed and no connection is open."""

    @property
    def outage(self) -> str:
        """Why they are down, in words that any caller may read; empty unless they are."""

    @property
    def retry_after(self) -> float:
        """Seconds until the next dial, while they are down."""


class Stoppable(Protocol):
    """A stream as admission sees it (`mail.producer`)."""

    def stop(self) -> None:
        """The service stops."""


class Reserver(Protocol):
    """Gives a mail its place: `Admission` for a single call, `Producer` for a stream."""

    def reserve(self, call: Call, wait_for: WaitFor, priority: Priority) -> "Reservation":
        """Take a place for one mail, or return one to wait for."""


class Admission:
    """Gives out the places for unsettled mails. Build it inside a running loop.

    A stream pauses for `pause_seconds` at most before a queue above its high-water mark. While it waits for a place, it
    looks every `look_seconds` whether the relay is down. With `has_backlog` guaranteed mails may wait in the store
    (`delivery.backlog`), and no stream pauses with them while the relay is down.

    Its whole state: the `places`, the `memory`, and `reserved`, the places of mails that are being accepted.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        queue: MailQueue,
        relays: RelayState,
        memory: Memory,
        *,
        pause_seconds: float = PAUSE_SECONDS,
        look_seconds: float = _LOOK_SECONDS,
        has_backlog: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.places = lifecycle.places
        self.memory = memory
        self.pause_seconds = pause_seconds
        self.look_seconds = look_seconds
        self.turns = Turns(clock)
        self.queue = queue
        self._has_backlog = has_backlog
        self._relays = relays
        self.reserved = 0
        self._closed = False
        self.producers: set[Stoppable] = set()
        self._reservation = Reservation(self)

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        places = f"{self.places.taken} open and {self.reserved} reserved of {self.places.size}"
        return f"<Admission {places}, {len(self.producers)} streams{state}>"

    @property
    def closed(self) -> bool:
        """Whether the service stops."""
        return self._closed

    @property
    def may_wait_in_store(self) -> bool:
        """Whether guaranteed mails need not wait for their turn to be accepted, since no worker takes any now."""
        return self._has_backlog and self._relays.down

    def close(self) -> None:
        """Refuse every mail from now on, since the service stops. Streams that wait for a place get Unavailable."""
        self._closed = True
        for producer in tuple(self.producers):
            producer.stop()

    def reserve(self, call: Call, wait_for: WaitFor, priority: Priority, *, code: bool = False) -> "Reservation":
        """Take a place for one mail, or for that of a `code`: `with` what is returned until it is accepted.

        Raises QueueFull where there is no place, MemoryFull where there is no memory, and ShareSpent where the caller
        has its share of one of them. Raises Unavailable where the service stops, or the caller would wait for a relay
        that is down.
        """
        if call.caller.may.shares is not None and (spent := self.spent(call.caller)):
            raise ShareSpent(*spent)
        place = self.reserve_of_plenty(wait_for)
        if place is None:
            self._check_place(call.source or call.caller.name, wait_for, fresh=priority is _URGENT)
            self.memory.make_room(code=code)
            self.reserved += 1
            place = self._reservation
        return place

    def reserve_of_plenty(self, wait_for: WaitFor) -> "Reservation | None":
        """Take a place where there are so many, and so much memory, that nobody need be asked for their share.

        Raises Unavailable as `reserve` does.
        """
        if self._closed or (self._relays.down and not wait_for.guarantees):
            self.check(wait_for)
        # fast path: nearly every mail finds it so, 1 us; held to the full path by tests/mail/test_admission.py
        places, memory = self.places, self.memory
        kept = memory.remembered.octets + memory.codes.octets + memory.addresses.octets
        if places.taken + self.reserved >= places.plenty or memory.reading + memory.unsettled + kept > memory.for_mails:
            return None
        self.reserved += 1
        return self._reservation

    def spent(self, caller: Caller) -> tuple[str, str] | None:
        """Return which share of a caller its mails take already, in words, and its key; None if none is taken whole."""
        shares, name = caller.may.shares, caller.name
        if shares is None:
            return None
        places, limit = max(1, int(shares.queue * self.places.size)), int(shares.memory * self.memory.for_mails)
        if self.places.held(name) >= places:
            words = f"{name} has {counted(places, 'unsettled mail')}, which is its queue_share in {caller.place}"
            return words, "queue_share"
        if self.places.octets(name) >= limit:
            taken = f"the unsettled mails of {name} take {limit >> 20} MiB"
            return f"{taken}, which is its memory_share in {caller.place}", "memory_share"
        return None

    def reserve_for_stream(self, source: str, wait_for: WaitFor, priority: Priority) -> "Reservation | None":
        """Take a place for one mail of a stream, or return None where the stream has to wait for it."""
        place = self.reserve_of_plenty(wait_for)
        if place is None and not self.places.waiting.sources and self.has_place_for_stream(source, wait_for, priority):
            self.check(wait_for)
            self.reserved += 1
            place = self._reservation
        return place

    def _check_place(self, source: str, wait_for: WaitFor, *, fresh: bool) -> None:
        """Raise QueueFull where a single call finds no place."""
        places = self.places
        most = places.size if fresh else places.for_others
        if not places.has_place(source, fresh=fresh, guaranteed=wait_for.guarantees, most=most, reserved=self.reserved):
            places.refused(source, fresh=fresh)
            raise QueueFull(places.size)

    def check(self, wait_for: WaitFor) -> None:
        """Raise Unavailable in a stop, and for a caller that would wait for a relay that is down."""
        if self._closed:
            raise Stopping
        if not wait_for.guarantees and self._relays.down:
            raise RelayDown(self._relays.outage or "the relay is down", retry_after=max(1.0, self._relays.retry_after))

    def has_place_for_stream(self, source: str, wait_for: WaitFor, priority: Priority) -> bool:
        """Whether a stream may have a place. Single calls, which can't wait, are left some."""
        fresh, places = priority is _URGENT, self.places
        most = places.size if fresh else places.for_streams
        if not places.has_place(source, fresh=fresh, guaranteed=wait_for.guarantees, most=most, reserved=self.reserved):
            return False
        return self.memory.has_room_for_stream()


class Reservation:
    """A place for one mail, taken before it is entered, and held until it is left.

    It has no state of its own, so all calls share one. One that `is_awaited` is taken by `wait`.
    """

    __slots__ = ("_admission",)
    is_awaited = False

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def wait(self) -> None:
        """Wait for the place."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave(is_accepted=kind is None)

    def leave(self, *, is_accepted: bool) -> None:
        """Give the place back: an accepted mail has one of its own."""
        admission = self._admission
        admission.reserved -= 1
        if not is_accepted and admission.places.waiting.sources:  # the mail is not open, so its place is free
            admission.places.waiting.call_next()
