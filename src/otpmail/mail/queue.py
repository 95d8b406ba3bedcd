"""The queue between the callers and the workers: urgent mails ahead of normal ahead of bulk, first in first out."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from math import inf

from otpmail.mail.job import Job
from otpmail.model import Priority

STALLED = 1 << 20
"""Added to the load of a taker whose mails make no progress."""


class MailQueue(asyncio.Queue[Job]):
    """An asyncio.Queue of jobs with three lanes. It is not bounded: how many mails may wait is decided at the door."""

    def _init(self, maxsize: int) -> None:  # noqa: ARG002  asyncio.Queue's own hook, as PriorityQueue uses it
        # By job, since any of tens of thousands may settle while it waits; and a job stands in its lane once.
        self._lanes: tuple[OrderedDict[Job, None], ...] = tuple(OrderedDict() for _ in Priority)
        self._takers: dict[asyncio.Future[None], Callable[[], int]] = {}

    def _put(self, item: Job) -> None:
        self._lanes[item.priority][item] = None

    def _get(self) -> Job:
        return next(lane for lane in self._lanes if lane).popitem(last=False)[0]

    def qsize(self) -> int:
        """How many jobs are in the lanes."""
        return sum(map(len, self._lanes))

    def empty(self) -> bool:
        """Whether no job is in any lane."""
        return not any(self._lanes)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(lane)} {name.name.lower()}" for name, lane in zip(Priority, self._lanes, strict=True))
        return f"<MailQueue {counts}>"

    def put_nowait(self, item: Job) -> None:
        """Put a job into its lane, and wake the taker that has least in hand."""
        super().put_nowait(item)
        self._wake()

    def take_nowait(self, load: int) -> Job | None:
        """The next job for a taker with this load, if there is one and nobody waits for it who goes before."""
        if self.empty() or self._others_go_before(load):
            return None
        job = self.get_nowait()
        if self._takers and not self.empty():
            self._wake()
        return job

    async def take(self, load: Callable[[], int]) -> Job:
        """The next job, for the taker with the least `load`: 0 if it has nothing to do, STALLED if its mails stand.

        An idle one goes before all, and any before one that has stalled: so a few mails spread over all connections,
        many still leave together, and nothing goes behind a mail that takes its time while another way is open.
        """
        while (job := self.take_nowait(load())) is None:
            turn = asyncio.get_running_loop().create_future()
            self._takers[turn] = load
            if not self.empty():
                self._wake(below=_goes_before(load()))
            try:
                await turn
            except asyncio.CancelledError:
                if not self.empty():  # it may have been this one's turn, or others may have left it to this one
                    self._wake()
                raise
            finally:
                del self._takers[turn]
        return job

    def _others_go_before(self, load: int) -> bool:
        below = _goes_before(load)
        return below > 0 and any(other() < below for other in self._takers.values())

    def _wake(self, *, below: float = inf) -> None:
        """Give the turn to the taker with the least load, if that is below a bound."""
        least: asyncio.Future[None] | None = None
        for turn, load in self._takers.items():
            if not turn.done() and (in_hand := load()) < below:
                least, below = turn, in_hand
                if not in_hand:
                    break
        if least is not None:
            least.set_result(None)

    def put_back(self, *jobs: Job) -> None:
        """Put jobs that were taken but not sent at the front of their lanes, in the order given, and wake workers."""
        for job in reversed(jobs):
            self.put_nowait(job)
            self._lanes[job.priority].move_to_end(job, last=False)

    def discard(self, job: Job) -> None:
        """Take a job out that has settled while it waited; without effect on one that is not in."""
        self._lanes[job.priority].pop(job, None)


def _goes_before(load: int) -> int:
    """Below which load others go before one with this load."""
    return STALLED if load >= STALLED else min(load, 1)
