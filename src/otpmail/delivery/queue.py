"""The queue between the callers and the workers: urgent mails ahead of normal ahead of bulk, first in first out."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from math import inf
from sys import maxsize
from typing import Protocol

from otpmail.delivery.job import Job
from otpmail.model import Priority

STALLED = 1 << 20
"""Added to the load of a taker whose mails make no progress."""


class Taker(Protocol):
    """Who takes jobs: a worker."""

    @property
    def load(self) -> int:
        """How much it has in hand: 0 if the next job is hardly kept waiting, from STALLED on if its mails stand."""

    def wake(self) -> None:
        """There is a job for it. It must call `take_nowait` then, or `pass_on`: nobody else is told of that job."""


class MailQueue(asyncio.Queue[Job]):
    """An asyncio.Queue of jobs with three lanes. It is not bounded: how many mails may wait is decided at the door.

    From `enough` on in one lane, one more there would only wait longer: the workers have what they need.
    """

    def __init__(self, *, enough: int = maxsize) -> None:
        self._enough = enough
        self._few = enough // 2
        super().__init__()

    def _init(self, maxsize: int) -> None:  # noqa: ARG002  asyncio.Queue's own hook, as PriorityQueue uses it
        # By job, since any of tens of thousands may settle while it waits; and a job stands in its lane once.
        self._lanes: tuple[OrderedDict[Job, None], ...] = tuple(OrderedDict() for _ in Priority)
        # Those that wait: with nothing in hand when they began to, with something, and those whose turn it is. A
        # thousand idle ones are not to be looked through for every mail.
        self._idle: dict[Taker, None] = {}
        self._busy: dict[Taker, None] = {}
        self._woken: dict[Taker, None] = {}
        # Those who bring jobs, and wait until there are few in a lane.
        self._producers: tuple[dict[Callable[[], None], None], ...] = tuple({} for _ in Priority)

    def _put(self, item: Job) -> None:
        self._lanes[item.priority][item] = None

    def _get(self) -> Job:
        for lane in self._lanes:
            if lane:
                job = lane.popitem(last=False)[0]
                if len(lane) <= self._few:
                    self._call_producer(job.priority)
                return job
        raise asyncio.QueueEmpty

    def qsize(self) -> int:
        """How many jobs are in the lanes."""
        return sum(map(len, self._lanes))

    def empty(self) -> bool:
        """Whether no job is in any lane."""
        urgent, normal, bulk = self._lanes
        return not (urgent or normal or bulk)

    def waiting(self) -> dict[str, int]:
        """How many jobs wait, by priority."""
        return {priority.name.lower(): len(lane) for priority, lane in zip(Priority, self._lanes, strict=True)}

    def __repr__(self) -> str:
        return f"<MailQueue {', '.join(f'{count} {priority}' for priority, count in self.waiting().items())}>"

    def put_nowait(self, item: Job) -> None:
        """Put a job into its lane, and wake the taker that has least in hand, unless one is on its way already."""
        super().put_nowait(item)
        if not self._woken:
            self._wake()

    def take_nowait(self, taker: Taker) -> Job | None:
        """The next job, if there is one and nobody waits for it who goes before.

        An idle one goes before all, and any before one that has stalled: so a few mails spread over all connections,
        many still leave together, and nothing goes behind a mail that takes its time while another way is open.
        Whoever takes one takes the next as well, or calls `pass_on`.
        """
        if self.empty():
            return None
        others = self._idle or self._busy or self._woken
        if others and (load := taker.load) and self._left_to_others(load):
            return None
        return self._get()

    def add_waiting(self, taker: Taker) -> None:
        """Wake this taker when it is its turn. It waits, so it has just been refused a job.

        Where it gets less in hand while it waits it wakes by itself, and enlists anew. Where it gets more, since what
        was about to be written has left, `take_nowait` finds out.
        """
        (self._busy if taker.load else self._idle)[taker] = None

    def dismiss(self, taker: Taker) -> None:
        """It waits no more. Whoever is dismissed and then takes nothing calls `pass_on`."""
        for takers in (self._woken, self._idle, self._busy):
            if taker in takers:
                del takers[taker]
                return

    def pass_on(self) -> None:
        """Give another the turn of one that can't use it."""
        if not self.empty():
            self._wake()

    def _left_to_others(self, load: int) -> bool:
        """Whether the next job is for another than a taker with this load; who that is has been woken then."""
        below = STALLED if load >= STALLED else 1
        for taker in self._woken:
            if taker.load < below:
                return True
        least = self._least_loaded(below)
        if least is not None:
            self._give_turn(least)
        return least is not None

    def _wake(self) -> None:
        """Give the turn to the taker with the least load, of those that wait for it."""
        least = self._least_loaded(inf)
        if least is not None:
            self._give_turn(least)

    def _least_loaded(self, below: float) -> Taker | None:
        """Of those that wait and have not been woken, the one with the least load, if that is less than `below`."""
        for taker in self._idle:
            return taker
        least: Taker | None = None
        for taker in self._busy:
            if (load := taker.load) < below:
                least, below = taker, load
                if not load:
                    break
        return least

    def _give_turn(self, taker: Taker) -> None:
        self.dismiss(taker)
        self._woken[taker] = None
        taker.wake()

    def put_back(self, *jobs: Job) -> None:
        """Put jobs that were taken but not sent at the front of their lanes, in the order given, and wake workers."""
        for job in reversed(jobs):
            self.put_nowait(job)
            self._lanes[job.priority].move_to_end(job, last=False)

    def discard(self, job: Job) -> None:
        """Take a job out that has settled while it waited; without effect on one that is not in."""
        lane = self._lanes[job.priority]
        if job not in lane:
            return
        del lane[job]
        if len(lane) <= self._few:
            self._call_producer(job.priority)

    # For those who bring many jobs, and can wait with them.

    def is_above_high_water(self, priority: Priority) -> bool:
        """Whether one more job of this priority would only wait longer. It may be put all the same."""
        return len(self._lanes[priority]) >= self._enough

    def call_below_low_water(self, priority: Priority, tell: Callable[[], None]) -> None:
        """Call this once, when no more than half of what is enough is left there, and it is its turn.

        It must not raise. Whoever waits for it does so for a moment only: others may bring as many jobs as leave.
        """
        self._producers[priority][tell] = None

    def forget(self, priority: Priority, tell: Callable[[], None]) -> None:
        """Do not call this any more; without effect where it was called."""
        self._producers[priority].pop(tell, None)

    def _call_producer(self, priority: Priority) -> None:
        """One of them, who came first, for each job that leaves: all at once could bring many times what is wanted."""
        bringers = self._producers[priority]
        if bringers:
            tell = next(iter(bringers))
            del bringers[tell]
            tell()
