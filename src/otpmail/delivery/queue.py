"""Decides which mail goes next: an asyncio.Queue of three lanes, urgent before normal before bulk, first in first out.

`delivery.dispatch` decides which worker takes it, `mail.admission` how many may wait.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from sys import maxsize

from otpmail.delivery.job import Job
from otpmail.model import Priority


class MailQueue(asyncio.Queue[Job]):
    """The jobs that wait for a worker. All methods of asyncio.Queue keep their meaning; it is not bounded.

    From `high_water` jobs in one lane on, one more in it would only wait longer: producers that can wait are called
    back at half of that. `lanes` holds the jobs by priority.
    """

    def __init__(self, *, high_water: int = maxsize) -> None:
        self.set_high_water(high_water)
        self._producers: tuple[dict[Callable[[], None], None], ...] = tuple({} for _ in Priority)
        super().__init__()

    # The hooks that asyncio's own PriorityQueue is made with.

    def _init(self, maxsize: int) -> None:  # noqa: ARG002
        # By job, since any of tens of thousands may settle while it waits.
        self.lanes: tuple[OrderedDict[Job, None], ...] = tuple(OrderedDict() for _ in Priority)

    def _put(self, item: Job) -> None:
        self.lanes[item.priority][item] = None

    def _get(self) -> Job:
        for lane, producers in zip(self.lanes, self._producers, strict=True):
            if lane:
                job = lane.popitem(last=False)[0]
                if producers and len(lane) <= self._low_water:
                    self._call_producer(job.priority)
                return job
        raise asyncio.QueueEmpty

    def qsize(self) -> int:
        """Return how many jobs wait."""
        return sum(map(len, self.lanes))

    def empty(self) -> bool:
        """Return whether no job waits."""
        urgent, normal, bulk = self.lanes
        return not (urgent or normal or bulk)

    def waiting(self) -> dict[str, int]:
        """Return how many jobs wait, by the name of their priority."""
        return {priority.name.lower(): len(self.lanes[priority]) for priority in Priority}

    def __repr__(self) -> str:
        return f"<MailQueue {', '.join(f'{count} {priority}' for priority, count in self.waiting().items())}>"

    __str__ = __repr__  # asyncio.Queue's own says nothing of the lanes

    def put_back(self, job: Job) -> None:
        """Put a job that was taken but not sent at the front of its lane."""
        self.put_nowait(job)
        self.lanes[job.priority].move_to_end(job, last=False)

    def discard(self, job: Job) -> None:
        """Take a job out that has settled while it waited; without effect where it does not wait."""
        lane = self.lanes[job.priority]
        if job not in lane:
            return
        del lane[job]
        self.task_done()
        if len(lane) <= self._low_water:
            self._call_producer(job.priority)

    # For producers of many jobs, which can wait with them.

    def set_high_water(self, high_water: int) -> None:
        """Move the marks, as the connections change."""
        self._high_water = high_water
        self._low_water = high_water // 2

    def is_above_high_water(self, priority: Priority) -> bool:
        """Return whether one more job of this priority would only wait longer. It may be put all the same."""
        return len(self.lanes[priority]) >= self._high_water

    def call_below_low_water(self, priority: Priority, callback: Callable[[], None]) -> None:
        """Call `callback` once, when half of the high-water mark is left and it is its turn. It must not raise.

        A producer waits for a moment only: others may put as many jobs as leave.
        """
        self._producers[priority][callback] = None

    def forget(self, priority: Priority, callback: Callable[[], None]) -> None:
        """Do not call `callback` any more; without effect where it was called."""
        self._producers[priority].pop(callback, None)

    def _call_producer(self, priority: Priority) -> None:
        """Call the first producer, one for each job that leaves: all at once could put many times what is wanted."""
        producers = self._producers[priority]
        if producers:
            callback = next(iter(producers))
            del producers[callback]
            callback()
