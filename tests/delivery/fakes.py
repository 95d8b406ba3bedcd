"""The shared part of the tests of delivery: jobs, time that a test moves, and a store that keeps what it is given."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from otpmail.delivery.job import Job
from otpmail.delivery.suppressions import Suppressions
from otpmail.events import Observer, Observers
from otpmail.limits.memory import Memory
from otpmail.limits.places import Places
from otpmail.model import Envelope, IssuedCode, Labels, Mail, Priority
from otpmail.store.base import Accepted, Conflict, Earlier, Entry, Owner, Progress, Request, Running
from otpmail.store.memory.addresses import MemoryAddressStore
from otpmail.store.wanted import Wanted, ever

NOW = 1_700_000_000.0
"""When a `Clock` begins, in seconds since the epoch."""


def make_job(
    name: str = "m",
    *recipients: str,
    priority: Priority = Priority.NORMAL,
    deadline: float = inf,
    guaranteed: bool = True,
    request_id: str = "",
    issued: IssuedCode | None = None,
    labels: Labels = (),
    source: str = "",
) -> Job:
    """Return a job whose content is its name, for ada@x.org unless told otherwise."""
    return Job(
        name,
        "shop",
        f"<{name}@example.org>",
        1.0,
        envelope=Envelope("service@example.org", recipients or ("ada@x.org",), name.encode()),
        priority=priority,
        deadline=deadline,
        guaranteed=guaranteed,
        request_id=request_id,
        issued=issued,
        labels=labels,
        source=source,
    )


def limits(size: int = 1000, memory: int = 1 << 30) -> dict[str, Any]:
    """Return the limits that a Lifecycle counts for: so many places, so many octets."""
    return {
        "places": Places(size, now=lambda: NOW),
        "memory": Memory(memory, Nothing(), Nothing()),
        "suppressions": suppressions(),
    }


def suppressions(observer: Observer | None = None, now: Callable[[], float] = lambda: NOW) -> Suppressions:
    """Return the suppressions of a process in which nothing is known of any address."""
    return Suppressions(MemoryAddressStore(now, most=1000, most_octets=1 << 20), observer or Observers())


class Nothing:
    """Remembers nothing."""

    octets = 0

    def forget_oldest(self) -> bool:
        """Return False, since nothing is left."""
        return False


@dataclass
class Timer:
    """A timer of a `Clock`."""

    callback: Callable[..., object]
    args: tuple[Any, ...]
    live: bool = True

    def cancel(self) -> None:
        """Never call back."""
        self.live = False


class Clock:
    """Time and timers in a test's hands: nothing runs until `advance` says so."""

    def __init__(self) -> None:
        self.time = NOW
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    def now(self) -> float:
        """Return the time, in seconds since the epoch."""
        return self.time

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Set a timer, as the loop does."""
        timer = Timer(callback, args)
        heapq.heappush(self._timers, (self.time + delay, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Let the time pass, and run the timers that fall due, each at its own moment."""
        until = self.time + seconds
        while self._timers and self._timers[0][0] <= until:
            self.time, _, timer = heapq.heappop(self._timers)
            if timer.live:
                timer.callback(*timer.args)
        self.time = until


class Store:
    """A MailStore that keeps what it is given for the test to look at, and yields `arriving`."""

    def __init__(self, now: Callable[[], float] = lambda: NOW, *, durable: bool = False) -> None:
        self.now = now
        self.durable = durable
        self.settled: list[Mail] = []
        self.undecided: list[Mail] = []  # of those, the ones whose request id is free again
        self.progress: list[tuple[str, Progress]] = []
        self.arriving: Sequence[Sequence[Entry]] = ()
        self.failed: dict[str, Entry] = {}  # what may be retried
        self.begins = asyncio.Event()
        self.begins.set()
        self.is_ours = True

    async def accept(self, entries: Sequence[Entry]) -> list[Accepted | Earlier | Running | Conflict]:
        """Fail: the lifecycle does not ask for this."""
        raise NotImplementedError

    async def claim(self, request: Request, mail_id: str) -> Accepted | Earlier | Running | Conflict:
        """Fail: the lifecycle does not ask for this."""
        raise NotImplementedError

    def release(self, request: Request, mail_id: str) -> None:
        """Fail: the lifecycle does not ask for this."""
        raise NotImplementedError

    async def begin_attempts(self, progresses: Mapping[str, Progress]) -> None:
        """Keep the progress, once `begins` lets it."""
        await self.begins.wait()
        self.progress += progresses.items()

    def deferred(self, mail_id: str, progress: Progress) -> None:
        """Keep the progress."""
        self.progress.append((mail_id, progress))

    def settle(self, mail: Mail, *, keep_request: bool = True, entry: Entry | None = None) -> None:
        """Keep the mail, and the entry of one that may be retried."""
        self.settled.append(mail)
        if entry is not None:
            self.failed[mail.id] = entry
        if not keep_request:
            self.undecided.append(mail)

    async def begin_forgetting(self, caller: str, person: bytes, until: float) -> None:
        """Fail: the lifecycle does not ask for this."""
        raise NotImplementedError

    async def erase(self, person: bytes) -> int:
        """Fail: the lifecycle does not ask for this."""
        raise NotImplementedError

    async def get(self, caller: str, mail_id: str) -> Mail | None:
        """Fail: the lifecycle does not ask for this."""
        raise NotImplementedError

    async def retryable(self, caller: str, mail_id: str) -> Entry | None:
        """Fail: the lifecycle does not ask for this."""
        raise NotImplementedError

    async def reopen(self, entry: Entry, settle_time: float) -> bool:
        """Fail: the lifecycle does not ask for this."""
        raise NotImplementedError

    async def caller_of(self, mail_id: str) -> str | None:
        """Return None."""

    async def find(self, caller: str, request_id: str) -> Earlier | Running | None:
        """Fail: the lifecycle does not ask for this."""
        raise NotImplementedError

    def remembered(self, wanted: Wanted = ever) -> AsyncIterator[Sequence[Mail]]:
        """Fail: the lifecycle does not ask for this."""
        raise NotImplementedError

    async def cancel(self, caller: str, mail_id: str) -> Mail | None:
        """Fail: the lifecycle does not ask for this."""
        raise NotImplementedError

    def watch(self, caller: str, mail_id: str) -> AsyncGenerator[Mail, None]:
        """Fail: the lifecycle does not ask for this."""
        raise NotImplementedError

    def may_send(self) -> bool:
        """Return what the test has set."""
        return self.is_ours

    def follow(self, owner: Owner) -> None:
        """Fail: the lifecycle does not ask for this."""
        raise NotImplementedError

    async def arrivals(self) -> AsyncIterator[Sequence[Entry]]:
        """Yield the slices that the test has put into `arriving`."""
        for entries in self.arriving:
            yield entries
