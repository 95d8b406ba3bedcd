"""Reads the requests of calls, so that few are half received at a time: gRPC buffers such a message whole.

gRPC fills a message's buffer once it is read, and does not say how far it has come. Here each call reads for itself,
also one with a single request, and a read that does not end at once counts with its greatest size.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc

from otpmail.errors import LimitExceeded
from otpmail.limits.memory import LARGE, READ_FACTOR, Memory
from otpmail.limits.resident import release_free_memory, resident
from otpmail.rpc.status import status_of
from otpmail.timers import CallLater, Timer

Context = Any  # generated stubs name a context type that exists for the type checker alone

_TICK_SECONDS = 0.05
_SLOW_TICKS = 4  # a message that is there is read within one turn of the loop, and there is one between two ticks
_FEWEST = 4
_MOST_AT_ONCE = 200  # that are ended at one tick
_MOST_SECONDS = 120.0
_LOOK_SECONDS = 0.2  # between two looks at the memory of the process, while many streams wait for a batch
_LEEWAY = 64 << 20  # what the process takes beside: code records, buffers of connections, free memory in pieces
_PAUSE_SECONDS = 0.05  # between two looks of a stream whether it may read its next batch


class ReadTooSlow(LimitExceeded):
    """A request was not received whole, and others wait for the memory that it may take."""

    reason = "READ_TOO_SLOW"

    def __init__(self) -> None:
        super().__init__("memory", "the request did not arrive whole in time", retry_after=1.0)


class Reads:
    """The requests that are being received. Build it inside a running loop.

    Beyond `most` slow reads the one that began first is ended, of the connection that has most of them. So is one that
    takes longer than `most_seconds`. `most_octets` is what a request may have, and `memory` tells how much there is for
    requests. A stream that waits for its next batch may have received half of it, or nothing. Where more streams than
    `most` wait, and the process takes more memory than is counted, some of them are ended in the same order.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        most_octets: int,
        most_seconds: float = _MOST_SECONDS,
        look_seconds: float = _LOOK_SECONDS,
        call_later: CallLater | None = None,
        resident: Callable[[], int] = resident,
    ) -> None:
        self.memory = memory
        self._most = max(_FEWEST, memory.for_reading // most_octets)
        self._most_ticks = most_seconds / _TICK_SECONDS
        self._look_seconds = look_seconds
        self._call_later = call_later or asyncio.get_running_loop().call_later
        self._resident = resident
        self._uncounted = resident() + memory.for_reading + _LEEWAY
        self._pending: dict[Context, int] = {}  # the tick at which each read began, the first first
        self._batches: dict[Context, Callable[[], None]] = {}  # reads of streams, and how to end each
        self._tick = 0
        self._timer: Timer | None = None
        self._look_timer: Timer | None = None
        self._ending: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return (
            f"<Reads {len(self._pending)} pending and {len(self._batches)} of streams, at most {self._most} slow ones>"
        )

    async def read(self, context: Context) -> Any:
        """Return the one request of a call as octets, EOF where its caller has gone without one.

        Raises AbortError where the read took too long, and the call has its status.
        """
        self._pending[context] = self._tick
        if self._timer is None:
            self._timer = self._call_later(_TICK_SECONDS, self._on_tick)
        try:
            return await context.read()
        finally:
            del self._pending[context]

    async def read_batch(self, context: Context, refuse: Callable[[], None]) -> Any:
        """Return the next request of a stream as octets, or EOF, once there is memory to read it.

        `refuse` is called where the stream is to end: by its status, which ends the read.
        """
        while self.memory.reading > self.memory.for_reading:  # noqa: ASYNC110  nobody is told when a number changes
            await asyncio.sleep(_PAUSE_SECONDS)
        self._batches[context] = refuse
        if self._look_timer is None and len(self._batches) > self._most:
            self._look_timer = self._call_later(self._look_seconds, self._on_look)
        try:
            return await context.read()
        finally:
            del self._batches[context]

    @contextmanager
    def counted(self, batch: bytes) -> Iterator[None]:
        """Count a batch that was read until its mails are accepted."""
        octets = len(batch) if len(batch) < LARGE else READ_FACTOR * len(batch)
        self.memory.reading += octets
        try:
            yield
        finally:
            self.memory.reading -= octets

    def _on_tick(self) -> None:
        self._timer = None
        if not self._pending:
            return
        self._tick += 1
        self._timer = self._call_later(_TICK_SECONDS, self._on_tick)
        slow: list[Context] = []
        for context, begun in self._pending.items():  # the first that is not slow ends it, so it looks at few
            if self._tick - begun < _SLOW_TICKS:
                break
            slow.append(context)
        if slow and self._tick - self._pending[slow[0]] > self._most_ticks:
            self._end(slow[:1])
        elif len(slow) > self._most:
            self._end(_most_greedy(slow, len(slow) - self._most))

    def _on_look(self) -> None:
        self._look_timer = None
        excess = len(self._batches) - self._most
        if excess <= 0:
            return
        self._look_timer = self._call_later(self._look_seconds, self._on_look)
        if self._is_short():
            release_free_memory()
            if self._is_short():
                for context in _most_greedy(list(self._batches), (excess + 1) // 2):
                    self._batches[context]()

    def _is_short(self) -> bool:
        """Whether the process takes more memory than what is counted, what it began with, and a part for requests."""
        return self._resident() > self._uncounted + self.memory.used()

    def _end(self, contexts: Iterable[Context]) -> None:
        """End these calls by their status: a read that is cancelled leaves gRPC's core to write into freed memory."""
        for context in contexts:
            task = asyncio.create_task(_refuse(context))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


async def _refuse(context: Context) -> None:
    with suppress(grpc.aio.BaseError, grpc.aio.UsageError):  # it has ended meanwhile
        await status_of(ReadTooSlow()).abort(context)


def _most_greedy(contexts: list[Context], count: int) -> list[Context]:
    """Return `count` contexts, fewer where those are many: the first ones of the connections that have most of them."""
    of_peer: defaultdict[str, list[Context]] = defaultdict(list)
    for context in contexts:
        of_peer[context.peer()].append(context)
    left = Counter({peer: len(of) for peer, of in of_peer.items()})
    chosen: list[Context] = []
    for _ in range(min(count, _MOST_AT_ONCE)):
        peer, _ = left.most_common(1)[0]
        chosen.append(of_peer[peer][-left[peer]])
        left[peer] -= 1
    return chosen
