"""A stream's way into the queue: its turns, the mails that it may have outstanding, and its waits for a place."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from otpmail.callers import Call
from otpmail.cooperate import TURN_SECONDS
from otpmail.mail.admission import Admission, Reservation
from otpmail.model import Priority, WaitFor

_FEW = 32  # mails that a stream brings before it looks at the queue's high-water mark again


class Producer:
    """One stream: how many of its mails are outstanding, and how long it waits before the next one.

    It has at most `most` mails outstanding. `on_full` is called before it waits for fewer, `on_stop` when the service
    stops.

    `outstanding` counts its mails that have not settled, and results that its caller has not read. `brought` counts the
    mails that it put into the queue since its last pause. The stream increments both.
    `has_waited` says that its next mail had to wait for its place.
    """

    def __init__(
        self, admission: Admission, call: Call, *, most: int, on_full: Callable[[], None], on_stop: Callable[[], None]
    ) -> None:
        self._admission = admission
        self._queue = admission.queue
        self.source = call.source or call.caller.name
        self._most = most
        self._on_full, self._on_stop = on_full, on_stop
        self._loop = asyncio.get_running_loop()
        self.outstanding = 0
        self.brought = 0
        self.has_waited = False
        self._clock = admission.turns.clock
        self._turn_ends = 0.0
        self._reservations: dict[tuple[WaitFor, Priority], _WaitingReservation] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self.place = asyncio.Lock()  # several mails may wait for a durable store, and then one of them for a place
        self._waits_for_room = False
        admission.producers.add(self)

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
        if self.outstanding < self._most and self._clock() < self._turn_ends:
            return None
        return self._wait_for_turn()

    async def begin(self) -> None:
        """Wait for a turn as one who has just waited for something else (`Turns.begin`)."""
        await self._admission.turns.begin()
        self._turn_ends = self._clock() + TURN_SECONDS

    async def _wait_for_turn(self) -> None:
        if self.outstanding < self._most:
            await self._admission.turns.wait()
        while self.outstanding >= self._most:
            self._on_full()
            self._waits_for_room = True
            await self._wait()
        self._turn_ends = self._clock() + TURN_SECONDS

    def reserve(self, call: Call, wait_for: WaitFor, priority: Priority) -> Reservation:
        """Take a place for one mail, or return one to wait for. Raises as `Admission.reserve`."""
        self._caller = call.caller
        has_share = call.caller.may.shares is None or not self._admission.spent(call.caller)
        if has_share and not self.place.locked() and (self.brought < _FEW or not self._is_paused(wait_for, priority)):
            place = self._admission.reserve_for_stream(self.source, wait_for, priority)
            if place is not None:
                return place
        reservation = self._reservations.get((wait_for, priority))
        if reservation is None:
            reservation = _WaitingReservation(self._admission, self, wait_for, priority)
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
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def stop(self) -> None:
        """The service stops."""
        self.wake()
        self._on_stop()

    def leave(self) -> None:
        """The stream has ended."""
        self._admission.producers.discard(self)

    async def wait_for_place(self, wait_for: WaitFor, priority: Priority) -> None:
        """Wait until the queue has use for the next mail, and a place. Raises Unavailable as entering a reservation."""
        if self.brought >= _FEW and self._is_paused(wait_for, priority) and not self._admission.closed:
            await self._pause(priority)
        may_go = partial(self._may_go, wait_for, priority)
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

    def _may_go(self, wait_for: WaitFor, priority: Priority) -> bool:
        if self._caller.may.shares is not None and self._admission.spent(self._caller):
            return False
        return self._admission.has_place_for_stream(self.source, wait_for, priority)

    def _is_paused(self, wait_for: WaitFor, priority: Priority) -> bool:
        """Whether the queue has no use for the next mail soon; while the relay is down it may wait in the store."""
        may_wait = wait_for.guarantees and self._admission.may_wait_in_store
        return not may_wait and self._queue.is_above_high_water(priority)

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
        waiting: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(waiting)
        alarm = None if seconds is None else self._loop.call_later(seconds, self.wake)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)
            if alarm is not None:
                alarm.cancel()


class _WaitingReservation(Reservation):
    """A place for one mail of a stream that may have to wait for it; like the other it is shared."""

    __slots__ = ("_priority", "_producer", "_wait_for")
    is_awaited = True

    def __init__(self, admission: Admission, producer: Producer, wait_for: WaitFor, priority: Priority) -> None:
        super().__init__(admission)
        self._producer = producer
        self._wait_for = wait_for
        self._priority = priority

    async def wait(self) -> None:
        """Wait for a place, in the turn of the stream, and take it. Raises what `Admission.check` does."""
        async with self._producer.place:
            await self._producer.wait_for_place(self._wait_for, self._priority)
            self._admission.check(self._wait_for)
            self._admission.reserved += 1

    def leave(self, *, is_accepted: bool) -> None:
        """Give the place back, as every reservation."""
        admission, producer = self._admission, self._producer
        admission.reserved -= 1
        if not is_accepted or producer.has_waited:  # a large mail that has left makes room for many others
            producer.has_waited = False
            admission.places.waiting.call_next()
