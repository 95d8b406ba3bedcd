"""Decides whether a mail may come in now: the only place that does, by one reservation for each mail.

A reservation is a place among the QUEUE_SIZE mails that may be unsettled (`limits.places`), where there is memory for
one more mail (`limits.memory`). A call holds it from before any work is done for its mail until the mail is accepted.
Without a free place a single call is rejected, a stream waits (`Producer`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

from otpmail.callers import Call
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.queue import MailQueue
from otpmail.errors import QueueFull, Unavailable
from otpmail.limits.memory import Memory
from otpmail.mail.turns import Turns
from otpmail.model import Priority, WaitFor

PAUSE_SECONDS = 0.05
"""The longest pause of a stream before each turn, while the queue is above its high-water mark."""

_STOPPING = "the service is stopping"
_URGENT = Priority.URGENT  # naming a member takes its time
_FEW = 32  # mails that a stream brings before it looks at the queue's high-water mark again
_LOOK_SECONDS = 1.0  # between two looks whether the relay is down, while a stream waits for a place


class RelayState(Protocol):
    """The relays as admission sees them (`relays.failover`)."""

    @property
    def down(self) -> bool:
        """Whether dialling has failed and no connection is open."""

    @property
    def retry_after(self) -> float:
        """Seconds until the next dial, while they are down."""


class Admission:
    """Gives out the places for unsettled mails. Build it inside a running loop.

    A stream pauses for `pause_seconds` at most before a queue above its high-water mark. While it waits for a place, it
    looks every `look_seconds` whether the relay is down.

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
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.places = lifecycle.places
        self.memory = memory
        self.pause_seconds = pause_seconds
        self.look_seconds = look_seconds
        self.turns = Turns(clock)
        self.queue = queue
        self._relays = relays
        self.reserved = 0
        self._closed = False
        self.producers: set[Producer] = set()
        self._reservation = Reservation(self)

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        places = f"{self.places.taken} open and {self.reserved} reserved of {self.places.size}"
        return f"<Admission {places}, {len(self.producers)} streams{state}>"

    @property
    def closed(self) -> bool:
        """Whether the service stops."""
        return self._closed

    def close(self) -> None:
        """Refuse every mail from now on, since the service stops. Streams that wait for a place get Unavailable."""
        self._closed = True
        for producer in tuple(self.producers):
            producer.stop()

    def reserve(self, call: Call, wait_for: WaitFor, priority: Priority, *, code: bool = False) -> "Reservation":
        """Take a place for one mail, or for that of a `code`: `async with` what is returned until it is accepted.

        Raises QueueFull where there is no place, and MemoryFull where there is no memory. Raises Unavailable where the
        service stops, or the caller would wait for a relay that is down.
        """
        if self._closed or (self._relays.down and not wait_for.guarantees):
            self.check(wait_for)
        places, memory = self.places, self.memory
        # fast path: plenty of places and memory, 1 us; held to the full path by tests/mail/test_admission.py
        if places.taken + self.reserved >= places.plenty:
            self._check_place(call.source or call.caller.name, wait_for, fresh=priority is _URGENT)
        kept = memory.remembered.octets + memory.codes.octets
        if memory.reading + memory.unsettled + kept > memory.for_mails:
            memory.make_room(code=code)
        self.reserved += 1
        return self._reservation

    def _check_place(self, source: str, wait_for: WaitFor, *, fresh: bool) -> None:
        """Raise QueueFull where a single call finds no place."""
        places = self.places
        most = places.size if fresh else places.for_others
        if not places.has_place(source, fresh=fresh, guaranteed=wait_for.guarantees, most=most, reserved=self.reserved):
            places.refused(source, fresh=fresh)
            raise QueueFull(places.size)

    def producer(self, call: Call, *, most: int, on_stop: Callable[[], None]) -> "Producer":
        """Return a stream's own way to places, with at most `most` mails outstanding; `close` calls `on_stop`."""
        producer = Producer(self, call.source or call.caller.name, most=most, on_stop=on_stop)
        self.producers.add(producer)
        return producer

    def check(self, wait_for: WaitFor) -> None:
        """Raise Unavailable in a stop, and for a caller that would wait for a relay that is down."""
        if self._closed:
            raise Unavailable(_STOPPING)
        if not wait_for.guarantees and self._relays.down:
            raise Unavailable("the relay is down", retry_after=max(1.0, self._relays.retry_after))

    def has_place_for_stream(self, source: str, wait_for: WaitFor, priority: Priority) -> bool:
        """Whether a stream may have a place. Single calls, which can't wait, are left some."""
        fresh, places = priority is _URGENT, self.places
        most = places.size if fresh else places.for_streams
        if not places.has_place(source, fresh=fresh, guaranteed=wait_for.guarantees, most=most, reserved=self.reserved):
            return False
        memory = self.memory
        kept = memory.remembered.octets + memory.codes.octets
        # fast path: as above
        return memory.reading + memory.unsettled + kept <= memory.for_mails or memory.has_room_for_stream()


class Reservation:
    """A place for one mail, held until it is left. It has no state of its own, so all calls share one."""

    __slots__ = ("_admission",)

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        admission = self._admission
        admission.reserved -= 1
        if kind is not None and admission.places.waiting.sources:  # the mail is not open, so its place is free
            admission.places.waiting.call_next()


class Producer:
    """One stream: how many of its mails are outstanding, and how long it waits before the next one.

    `outstanding` counts its mails that have not settled, and results that its caller has not read. `brought` counts the
    mails that it put into the queue since its last pause. The stream increments both. `slice` is the time of its turn.
    `has_waited` says that its next mail had to wait for its place.
    """

    def __init__(self, admission: Admission, source: str, *, most: int, on_stop: Callable[[], None]) -> None:
        self._admission = admission
        self._queue = admission.queue
        self.source = source
        self._most = most
        self._on_stop = on_stop
        self._loop = asyncio.get_running_loop()
        self.outstanding = 0
        self.brought = 0
        self.has_waited = False
        self.slice = admission.turns.slice()
        self._reservations: dict[tuple[WaitFor, Priority], _StreamReservation] = {}
        self._waiting: asyncio.Future[None] | None = None
        self._waits_for_room = False

    def __repr__(self) -> str:
        return f"<Producer {self.outstanding} of {self._most} outstanding>"

    @property
    def is_full(self) -> bool:
        """Whether as many mails are outstanding as may be."""
        return self.outstanding >= self._most

    def turn(self) -> Awaitable[None] | None:
        """Return an awaitable for the stream to await before it brings another mail, None where it need not wait.

        It ends once other tasks have had the loop, and the caller has read enough results.
        """
        if self.outstanding < self._most and not self.slice.is_over:
            return None
        return self._wait_for_turn()

    async def _wait_for_turn(self) -> None:
        if self.outstanding < self._most:
            await self._admission.turns.wait()
        while self.outstanding >= self._most:
            self._waits_for_room = True
            await self._wait()
        self.slice.begin()

    def reserve(self, call: Call, wait_for: WaitFor, priority: Priority) -> "Reservation":  # noqa: ARG002  limits will
        """Return a place for one mail; entering it waits until there is one, and raises as `Admission.reserve`."""
        reservation = self._reservations.get((wait_for, priority))
        if reservation is None:
            reservation = _StreamReservation(self._admission, self, wait_for, priority)
            self._reservations[wait_for, priority] = reservation
        return reservation

    def free(self, count: int = 1) -> None:
        """Count `count` fewer mails or results as outstanding."""
        self.outstanding -= count
        if self._waits_for_room:
            self._waits_for_room = False
            self.wake()

    def wake(self) -> None:
        """Look again."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def stop(self) -> None:
        """The service stops."""
        self.wake()
        self._on_stop()

    def leave(self) -> None:
        """The stream has ended."""
        self._admission.producers.discard(self)

    async def wait_for_place(self, wait_for: WaitFor, priority: Priority) -> None:
        """Wait until the queue has use for the next mail, and a place. Raises Unavailable as entering a reservation."""
        if self.brought >= _FEW and self._queue.is_above_high_water(priority) and not self._admission.closed:
            await self._pause(priority)
        may_go = partial(self._admission.has_place_for_stream, self.source, wait_for, priority)
        waiting = self._admission.places.waiting
        while not may_go():
            self._admission.check(wait_for)
            self.has_waited = True
            waiting.add(self.source, self.wake, may_go)
            try:
                await self._wait(self._admission.look_seconds)
            except BaseException:
                if not waiting.discard(self.source, self.wake):
                    waiting.call_next()  # so that another stream gets the place
                raise
            waiting.discard(self.source, self.wake)

    async def _pause(self, priority: Priority) -> None:
        """Wait until half of the jobs above the high-water mark have left, but only for a moment.

        Further mails would be out of the processor's caches by the time they left. And a stream with a thousand mails
        in the queue keeps all other callers' mails behind them.
        """
        self.brought = 0
        self._queue.call_below_low_water(priority, self.wake)
        try:
            await self._wait(self._admission.pause_seconds)
        finally:
            self._queue.forget(priority, self.wake)

    async def _wait(self, seconds: float | None = None) -> None:
        """Wait to be woken, at most `seconds`."""
        self._waiting = self._loop.create_future()
        alarm = None if seconds is None else self._loop.call_later(seconds, self.wake)
        try:
            await self._waiting
        finally:
            self._waiting = None
            if alarm is not None:
                alarm.cancel()


class _StreamReservation(Reservation):
    """A place for one mail of a stream; like the other it is shared."""

    __slots__ = ("_priority", "_producer", "_wait_for")

    def __init__(self, admission: Admission, producer: Producer, wait_for: WaitFor, priority: Priority) -> None:
        super().__init__(admission)
        self._producer = producer
        self._wait_for = wait_for
        self._priority = priority

    async def __aenter__(self) -> Self:
        admission = self._admission
        if (self._producer.brought >= _FEW and admission.queue.is_above_high_water(self._priority)) or (
            not admission.has_place_for_stream(self._producer.source, self._wait_for, self._priority)
        ):
            await self._producer.wait_for_place(self._wait_for, self._priority)
        admission.check(self._wait_for)
        admission.reserved += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        admission, producer = self._admission, self._producer
        admission.reserved -= 1
        if kind is not None or producer.has_waited:  # a large mail that has left makes room for many others
            producer.has_waited = False
            admission.places.waiting.call_next()
