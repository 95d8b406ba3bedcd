"""Decides which mail goes next: an asyncio.Queue of three lanes, urgent before normal before bulk.

Within a lane the callers take turns, and each caller's mails go first in first out. `delivery.dispatch` decides which
worker takes a mail, `mail.admission` how many may wait.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from sys import maxsize

from otpmail.delivery.job import Job
from otpmail.model import Priority


class MailQueue(asyncio.Queue[Job]):
    """The jobs that wait for a worker. All methods of asyncio.Queue keep their meaning; it is not bounded.

    From `high_water` jobs in one lane on, one more in it would only wait longer. Producers that can wait are called
    back at half of that. `lanes` holds the jobs by priority, then by whose turn they wait for (`Job.turn`). The first
    of a lane's turns is the next one.
    """

    def __init__(self, *, high_water: int = maxsize) -> None:
        self.set_high_water(high_water)
        self._producers: tuple[dict[Callable[[], None], None], ...] = tuple({} for _ in Priority)
        super().__init__()

    # The hooks that asyncio's own PriorityQueue is made with.

    def _init(self, maxsize: int) -> None:  # noqa: ARG002
        # By job, since any of tens of thousands may settle while it waits.
        self.lanes: tuple[OrderedDict[str, OrderedDict[Job, None]], ...] = tuple(OrderedDict() for _ in Priority)
        self._lengths = [0 for _ in Priority]  # jobs in each lane

    def _put(self, item: Job) -> None:
        lane = self.lanes[item.priority]
        jobs = lane.get(item.turn)
        if jobs is None:
            jobs = lane[item.turn] = OrderedDict()
        jobs[item] = None
        self._lengths[item.priority] += 1

    def take(self) -> Job:
        """Return the next job, as `get_nowait` does, to one who knows that a job waits."""
        # fast path: nobody waits for a place in a queue without bounds, 0.2 us; held to the full path by
        # tests/delivery/test_queue.py
        for lane in self.lanes:
            if lane:
                turn = next(iter(lane))
                jobs = lane[turn]
                job, _ = jobs.popitem(last=False)
                if jobs:
                    lane.move_to_end(turn)
                else:
                    del lane[turn]
                priority = job.priority
                self._lengths[priority] -= 1
                if self._producers[priority]:
                    self._call_producer(priority)
                return job
        raise asyncio.QueueEmpty

    _get = take

    def qsize(self) -> int:
        """Return how many jobs wait."""
        return sum(self._lengths)

    def empty(self) -> bool:
        """Return whether no job waits."""
        urgent, normal, bulk = self.lanes
        return not (urgent or normal or bulk)

    def length(self, priority: Priority) -> int:
        """Return how many jobs of this priority wait."""
        return self._lengths[priority]

    def waiting(self) -> dict[str, int]:
        """Return how many jobs wait, by the name of their priority."""
        return {priority.name.lower(): self._lengths[priority] for priority in Priority}

    def __repr__(self) -> str:
        return f"<MailQueue {', '.join(f'{count} {priority}' for priority, count in self.waiting().items())}>"

    __str__ = __repr__  # asyncio.Queue's own says nothing of the lanes

    def put_back(self, job: Job) -> None:
        """Put a job that was taken but not sent at the front of its lane."""
        self.put_nowait(job)
        lane = self.lanes[job.priority]
        lane[job.turn].move_to_end(job, last=False)
        lane.move_to_end(job.turn, last=False)

    def discard(self, job: Job) -> None:
        """Take a job out that has settled while it waited; without effect where it does not wait."""
        lane = self.lanes[job.priority]
        jobs = lane.get(job.turn)
        if jobs is None or job not in jobs:
            return
        del jobs[job]
        if not jobs:
            del lane[job.turn]
        self.task_done()
        self._lengths[job.priority] -= 1
        self._call_producer(job.priority)

    # For producers of many jobs, which can wait with them.

    def set_high_water(self, high_water: int) -> None:
        """Move the marks, as the connections change."""
        self._high_water = high_water
        self._low_water = high_water // 2

    def is_above_high_water(self, priority: Priority) -> bool:
        """Return whether one more job of this priority would only wait longer. It may be put all the same."""
        return self._lengths[priority] >= self._high_water

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
        if producers and self._lengths[priority] <= self._low_water:
            callback = next(iter(producers))
            del producers[callback]
            callback()
