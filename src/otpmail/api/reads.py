"""Reads the requests of calls, so that few are half received at a time: gRPC buffers such a message whole.

gRPC fills a message's buffer once it is read, and does not say how far it has come. Here each call reads for itself,
also one with a single request. A read that does not end at once counts with its greatest size.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from types import coroutine
from typing import Any

from otpmail.api.calls import CallEnded, Context, Ended
from otpmail.api.pressure import LOOK_SECONDS, WaitingStreams, most_greedy
from otpmail.api.status import status_of
from otpmail.errors import LimitExceeded, MemoryFull
from otpmail.limits.memory import HEAD_OCTETS, LARGE, READ_FACTOR, Held, Memory
from otpmail.limits.resident import resident
from otpmail.limits.sockets import receiving, shut_down
from otpmail.mail.turns import Turns
from otpmail.timers import CallLater, Timer

_TICK_SECONDS = 0.02
_SLOW_TICKS = 3  # a message that is there is read within a turn or two of the loop, of which one is in each tick
_SLOW_MAIL_TICKS = 25  # of a mail that keeps others waiting
_MOST_SECONDS = 120.0
_PAUSE_SECONDS = 0.05  # between two looks of a stream whether it may read its next batch


class ReadTooSlow(LimitExceeded):
    """A request was not received whole, and others wait for the memory that it may take."""

    reason = "READ_TOO_SLOW"

    def __init__(self) -> None:
        super().__init__("memory", "the request did not arrive whole in time", retry_after=1.0)


class Reads:
    """The requests that are being received. Build it inside a running loop.

    - Mails may be large, so `most` of them are read at a time, and the others wait in turns by connection. One that
      keeps others waiting for half a second is ended.
    - Other requests are small, and are there when their call begins. Beyond `most` that are not, some are ended soon.
    - A stream that waits for its next batch may have received half of it, or nothing. Where more than `most` streams
      wait, and memory is short, some of them are ended (`api.pressure`).

    The connection that has most of them loses first, and of its own the oldest. `most_octets` is what a request may
    have, and `memory` tells how much there is for requests. A read that is not alone ends after `most_seconds`, except
    for that of a stream.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        most_octets: int,
        ended: Ended = CallEnded,
        most_seconds: float = _MOST_SECONDS,
        look_seconds: float = LOOK_SECONDS,
        call_later: CallLater | None = None,
        resident: Callable[[], int] = resident,
        receiving: Callable[[float], frozenset[str]] = receiving,
        shut_down: Callable[[Collection[str]], None] = shut_down,
    ) -> None:
        self.memory = memory
        self.ended = ended if isinstance(ended, tuple) else (ended,)
        self._most = max(1, memory.for_reading // most_octets)
        self._most_ticks = most_seconds / _TICK_SECONDS
        self._call_later = call_later or asyncio.get_running_loop().call_later
        self._streams = WaitingStreams(
            memory,
            most=self._most,
            look_seconds=look_seconds,
            call_later=self._call_later,
            resident=resident,
            receiving=receiving,
            shut_down=shut_down,
        )
        self._slots = self._most
        self._rounds = Turns()
        self._has_copied = False  # a large request, in this round of the loop
        # Of mails that wait, by connection.
        self._turns: OrderedDict[str, OrderedDict[asyncio.Future[None], None]] = OrderedDict()
        self._mails: dict[Context, int] = {}  # the tick at which each read of a mail began, the first first
        self._others: dict[Context, int] = {}
        self._tick = 0
        self._timer: Timer | None = None
        self._ending: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        reads = f"{len(self._mails)} mails, {len(self._others)} others, {len(self._streams)} streams"
        return f"<Reads {reads}, at most {self._most}>"

    async def read(self, context: Context, *, is_mail: bool = False) -> Any:
        """Return the one request of a call as octets, EOF where its caller has gone without one.

        A mail may be large, and is read when it is its turn. Raises AbortError where the read took too long, and the
        call has its status.
        """
        if is_mail:
            if self._slots:
                self._slots -= 1
            else:
                if self._timer is None:
                    self._set_timer()
                await self._wait_for_turn(context.peer())
        pending = self._mails if is_mail else self._others
        pending[context] = self._tick
        if self._timer is None and len(pending) > 1:
            self._set_timer()
        try:
            return await self._receive(context)
        finally:
            del pending[context]
            if is_mail:
                if self._turns:
                    self._pass_turn_on()
                else:
                    self._slots += 1

    @coroutine
    def _receive(self, context: Context) -> Generator[Any, None, Any]:
        """Await a read of gRPC's, so that one large message is copied in a round of the loop: 9 MB take 10 ms.

        The read waits until the message is there, and copies it when it goes on.
        """
        reading: Coroutine[Any, None, Any] = context.read()
        try:
            waits_for = reading.send(None)
            while True:
                try:
                    yield waits_for
                    while self._has_copied:
                        yield from self._rounds.wait().__await__()
                except BaseException as error:  # noqa: BLE001  the read takes it, as if it had waited by itself
                    waits_for = reading.throw(error)
                else:
                    waits_for = reading.send(None)
        except StopIteration as end:
            octets = end.value
        if self.memory.arrived is not None:
            self.note(context, octets)
        if len(octets) >= LARGE:
            self._has_copied = True
            asyncio.get_running_loop().call_soon(self._end_round)
        return octets

    def note(self, context: Context, octets: Any) -> Any:
        """Count a request that has come, while a flood is looked for, and return it. Doors that read call this too."""
        if (arrived := self.memory.arrived) is not None:
            arrived[context.peer()] = arrived.get(context.peer(), 0) + len(octets) + HEAD_OCTETS
        return octets

    def _end_round(self) -> None:
        self._has_copied = False

    def _set_timer(self) -> None:
        """Look at the reads from now on. One that is alone keeps nobody waiting, so no timer is set for it."""
        self._timer = self._call_later(_TICK_SECONDS, self._on_tick)

    async def _wait_for_turn(self, peer: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._turns.setdefault(peer, OrderedDict())[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_turn_on()
            elif peer in self._turns:  # so that no mail ends for the sake of one that has gone
                self._turns[peer].pop(turn, None)
                if not self._turns[peer]:
                    del self._turns[peer]
            raise

    def _pass_turn_on(self) -> None:
        """Give the slot to the next connection that waits for one."""
        while self._turns:
            peer, turns = next(iter(self._turns.items()))
            turn, _ = turns.popitem(last=False)
            if turns:
                self._turns.move_to_end(peer)
            else:
                del self._turns[peer]
            if not turn.done():
                turn.set_result(None)
                return
        self._slots += 1

    async def read_batch(self, context: Context, refuse: Callable[[], None]) -> Any:
        """Return the next request of a stream as octets, or EOF, once there is memory to read it.

        `refuse` is called where the stream is to end: by its status, which ends the read.
        """
        while self.memory.reading > self.memory.for_reading:  # noqa: ASYNC110  a plain number wakes nobody
            await asyncio.sleep(_PAUSE_SECONDS)
        self._streams.add(context, refuse)
        try:
            return await self._receive(context)
        finally:
            self._streams.discard(context)

    @contextmanager
    def counted(self, batch: bytes) -> Iterator[None]:
        """Count a batch that was read until its mails are accepted.

        Raises MemoryFull for a large one where calls take their part of the memory. Many streams that have waited for
        long may bring one at the same moment.
        """
        memory, octets = self.memory, len(batch)
        if octets < LARGE:
            memory.reading += octets
            try:
                yield
            finally:
                memory.reading -= octets
            return
        if memory.reading + READ_FACTOR * octets > memory.for_calls and memory.reading > READ_FACTOR * octets:
            raise MemoryFull
        held = Held(memory, octets)
        try:
            yield
        finally:
            held.release()

    def _on_tick(self) -> None:
        self._timer = None
        if not self._mails and not self._others:
            return
        self._tick += 1
        self._timer = self._call_later(_TICK_SECONDS, self._on_tick)
        for pending in (self._mails, self._others):
            self._end(self._older(pending, self._most_ticks))
        if self._turns:
            slow = self._older(self._mails, _SLOW_MAIL_TICKS)
            self._end(most_greedy(slow, min(len(slow), sum(map(len, self._turns.values())))))
        slow = self._older(self._others, _SLOW_TICKS)
        if len(slow) > self._most:
            self._end(most_greedy(slow, len(slow) - self._most))

    def _older(self, pending: dict[Context, int], ticks: float) -> list[Context]:
        """Return the reads that began so many ticks ago: the first one that did not ends the search."""
        latest = self._tick - ticks
        return list(takewhile(lambda context: pending[context] <= latest, pending))

    def _end(self, contexts: Iterable[Context]) -> None:
        """End these calls by their status: a read that is cancelled leaves gRPC's core to write into freed memory."""
        for context in contexts:
            task = asyncio.create_task(self._refuse(context))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _refuse(self, context: Context) -> None:
        with suppress(*self.ended):  # by this, or meanwhile
            await status_of(ReadTooSlow()).abort(context)
