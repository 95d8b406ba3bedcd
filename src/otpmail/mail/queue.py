"""The queue between the callers and the workers: urgent mails ahead of normal ahead of bulk, first in first out."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from otpmail.mail.job import Job
from otpmail.model import Priority


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
        """The next job for a taker with this load, if there is one and nobody without any waits for it."""
        if self.empty() or (load and self._idler_waits()):
            return None
        job = self.get_nowait()
        if self._takers and not self.empty():
            self._wake()
        return job

    async def take(self, load: Callable[[], int]) -> Job:
        """The next job, for the taker whose `load` is least: 0 for one that has nothing to do.

        So a few mails spread over all connections, and many still leave together.
        """
        while (job := self.take_nowait(load())) is None:
            turn = asyncio.get_running_loop().create_future()
            self._takers[turn] = load
            if not self.empty():
                self._wake(only_idle=True)
            try:
                await turn
            except asyncio.CancelledError:
                if not self.empty():  # it may have been this one's turn, or others may have left it to this one
                    self._wake()
                raise
            finally:
                del self._takers[turn]
        return job

    def _idler_waits(self) -> bool:
        return any(not load() for load in self._takers.values())

    def _wake(self, *, only_idle: bool = False) -> None:
        least: asyncio.Future[None] | None = None
        load_of_least = 0
        for turn, load in self._takers.items():
            if turn.done():
                continue
            if not (in_hand := load()):
                turn.set_result(None)
                return
            if least is None or in_hand < load_of_least:
                least, load_of_least = turn, in_hand
        if least is not None and not only_idle:
            least.set_result(None)

    def put_back(self, *jobs: Job) -> None:
        """Put jobs that were taken but not sent at the front of their lanes, in the order given, and wake workers."""
        for job in reversed(jobs):
            self.put_nowait(job)
            self._lanes[job.priority].move_to_end(job, last=False)

    def discard(self, job: Job) -> None:
        """Take a job out that has settled while it waited; without effect on one that is not in."""
        self._lanes[job.priority].pop(job, None)
