"""Decides whether a mail may come in now: the only place that does, by one reservation for each mail.

A reservation is a place among the QUEUE_SIZE mails that may be unsettled. A call holds it from before any work is done
for its mail until the mail is accepted. Without a free place a single call is rejected, a stream waits (`Producer`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self

from otpmail.callers import Call
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.queue import MailQueue
from otpmail.errors import QueueFull, Unavailable
from otpmail.model import Priority, WaitFor

PAUSE_SECONDS = 0.05
"""The longest pause of a stream before each turn, while the queue is above its high-water mark."""

_STOPPING = "the service is stopping"
_RESERVE = 10  # the last tenth of the queue is for single calls, which can't wait for a place
_TURN = 32  # mails of a stream; then others have the loop, since a batch may be of any size
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
    """Gives out `size` places for unsettled mails. Build it inside a running loop.

    A stream pauses for `pause_seconds` at most before a queue above its high-water mark. While it waits for a place, it
    looks every `look_seconds` whether the relay is down.

    Its whole state: the open mails of the `lifecycle`, and `reserved`, the places of mails that are being accepted.
    """

    def __init__(
        self,
        size: int,
        lifecycle: Lifecycle,
        queue: MailQueue,
        relays: RelayState,
        *,
        pause_seconds: float = PAUSE_SECONDS,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._size = size
        self.most_for_streams = size - size // _RESERVE
        self._pause_seconds = pause_seconds
        self._look_seconds = look_seconds
        self.lifecycle = lifecycle
        self.queue = queue
        self._relays = relays
        self.reserved = 0
        self._closed = False
        self._producers: set[Producer] = set()
        self._reservations = {wait_for: Reservation(self, wait_for) for wait_for in WaitFor}

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        open_, streams = len(self.lifecycle), len(self._producers)
        return f"<Admission {open_} open and {self.reserved} reserved of {self._size}, {streams} streams{state}>"

    @property
    def closed(self) -> bool:
        """Whether the service stops."""
        return self._closed

    def close(self) -> None:
        """Refuse every mail from now on, since the service stops. Streams that wait for a place get Unavailable."""
        self._closed = True
        for producer in tuple(self._producers):
            producer.stop()

    def reserve(self, call: Call, wait_for: WaitFor, priority: Priority) -> "Reservation":  # noqa: ARG002  limits will
        """Return a place for one mail: `async with` it until the mail is accepted.

        Entering it raises QueueFull where there is no place, and Unavailable where the service stops, or the caller
        would wait for a relay that is down.
        """
        return self._reservations[wait_for]

    def producer(self, *, most: int, on_stop: Callable[[], None]) -> "Producer":
        """Return a stream's own way to places, with at most `most` mails outstanding; `close` calls `on_stop`."""
        seconds = self._pause_seconds, self._look_seconds
        producer = Producer(self, self.queue, most=most, on_stop=on_stop, seconds=seconds)
        self._producers.add(producer)
        return producer

    # For reservations and producers.

    def take_place(self, wait_for: WaitFor) -> None:
        """Take a place. Raises as entering a reservation does."""
        if self._closed or (self._relays.down and not wait_for.guarantees):
            self.check(wait_for)
        if self.reserved + len(self.lifecycle.jobs) >= self._size:
            raise QueueFull(self._size)
        self.reserved += 1

    def check(self, wait_for: WaitFor) -> None:
        """Raise Unavailable in a stop, and for a caller that would wait for a relay that is down."""
        if self._closed:
            raise Unavailable(_STOPPING)
        if not wait_for.guarantees and self._relays.down:
            raise Unavailable("the relay is down", retry_after=max(1.0, self._relays.retry_after))

    @property
    def has_place_for_streams(self) -> bool:
        """Whether more than the reserve for single calls is left."""
        return self.reserved + len(self.lifecycle.jobs) < self.most_for_streams

    def call_at_next_settlement(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when the next mail settles and it is its turn."""
        self.lifecycle.call_at_next_settlement(callback)

    def forget(self, producer: "Producer") -> None:
        """The producer's stream has ended."""
        self._producers.discard(producer)
        self.lifecycle.forget(producer.wake)


class Reservation:
    """A place for one mail, held from entering to leaving it. It has no state of its own, so all calls share one."""

    __slots__ = ("_admission", "_wait_for")

    def __init__(self, admission: Admission, wait_for: WaitFor) -> None:
        self._admission = admission
        self._wait_for = wait_for

    async def __aenter__(self) -> Self:
        self._admission.take_place(self._wait_for)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.reserved -= 1
        if kind is not None:  # the mail is not open, so its place is free
            self._admission.lifecycle.call_next()


class Producer:
    """One stream: how many of its mails are outstanding, and how long it waits before the next one.

    `outstanding` counts its mails that have not settled, and results that its caller has not read. `brought` counts the
    mails that it put into the queue since its last pause. The stream increments both.
    """

    def __init__(
        self,
        admission: Admission,
        queue: MailQueue,
        *,
        most: int,
        on_stop: Callable[[], None],
        seconds: tuple[float, float],
    ) -> None:
        self._pause_seconds, self._look_seconds = seconds
        self._admission = admission
        self._queue = queue
        self._most = most
        self._on_stop = on_stop
        self._loop = asyncio.get_running_loop()
        self.outstanding = 0
        self.brought = 0
        self._left_of_turn = _TURN
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
        if self._left_of_turn and self.outstanding < self._most:
            self._left_of_turn -= 1
            return None
        return self._wait_for_turn()

    async def _wait_for_turn(self) -> None:
        if not self._left_of_turn:
            self._left_of_turn = _TURN
            await asyncio.sleep(0)
        self._left_of_turn -= 1
        while self.outstanding >= self._most:
            self._waits_for_room = True
            await self._wait()

    def reserve(self, call: Call, wait_for: WaitFor, priority: Priority) -> "Reservation":  # noqa: ARG002  limits will
        """Return a place for one mail, as `Admission.reserve` does; entering it waits until there is one."""
        reservation = self._reservations.get((wait_for, priority))
        if reservation is None:
            reservation = _StreamReservation(self._admission, wait_for, self, priority)
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
        self._admission.forget(self)

    async def wait_for_place(self, wait_for: WaitFor, priority: Priority) -> None:
        """Wait until the queue has use for the next mail, and a place. Raises Unavailable as entering a reservation."""
        if self.brought >= _TURN and self._queue.is_above_high_water(priority) and not self._admission.closed:
            await self._pause(priority)
        while not self._admission.has_place_for_streams:
            self._admission.check(wait_for)
            self._admission.call_at_next_settlement(self.wake)
            try:
                await self._wait(self._look_seconds)
            except BaseException:
                self._admission.forget(self)  # so that another stream gets the place
                raise

    async def _pause(self, priority: Priority) -> None:
        """Wait until half of the jobs above the high-water mark have left, but only for a moment.

        Further mails would be out of the processor's caches by the time they left. And a stream with a thousand mails
        in the queue keeps all other callers' mails behind them.
        """
        self.brought = 0
        self._queue.call_below_low_water(priority, self.wake)
        try:
            await self._wait(self._pause_seconds)
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

    __slots__ = ("_priority", "_producer")

    def __init__(self, admission: Admission, wait_for: WaitFor, producer: Producer, priority: Priority) -> None:
        super().__init__(admission, wait_for)
        self._producer = producer
        self._priority = priority

    async def __aenter__(self) -> Self:
        admission = self._admission
        # fast path: a short queue with places left is not waited for, 1 us; held to the full path by
        # tests/mail/test_stream.py
        if (
            self._producer.brought >= _TURN and admission.queue.is_above_high_water(self._priority)
        ) or admission.reserved + len(admission.lifecycle.jobs) >= admission.most_for_streams:
            await self._producer.wait_for_place(self._wait_for, self._priority)
        admission.take_place(self._wait_for)
        return self
