"""The queue between the callers and the workers: urgent mails ahead of normal ahead of bulk, first in first out."""

import asyncio
from collections import deque
from contextlib import suppress

from otpmail.mail.job import Job
from otpmail.model import Priority


class MailQueue(asyncio.Queue[Job]):
    """An asyncio.Queue of jobs with three lanes. It is not bounded: how many mails may wait is decided at the door."""

    def _init(self, maxsize: int) -> None:  # noqa: ARG002  asyncio.Queue's own hook, as PriorityQueue uses it
        self._lanes: tuple[deque[Job], ...] = tuple(deque() for _ in Priority)

    def _put(self, item: Job) -> None:
        lane = self._lanes[item.priority]
        if item.taken_before:
            lane.appendleft(item)
        else:
            lane.append(item)

    def _get(self) -> Job:
        return next(lane for lane in self._lanes if lane).popleft()

    def qsize(self) -> int:
        """How many jobs are in the lanes."""
        return sum(map(len, self._lanes))

    def empty(self) -> bool:
        """Whether no job is in any lane."""
        return not any(self._lanes)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(lane)} {name.name.lower()}" for name, lane in zip(Priority, self._lanes, strict=True))
        return f"<MailQueue {counts}>"

    def put_back(self, job: Job) -> None:
        """Put a job that was taken but not sent at the front of its lane, and wake a worker."""
        job.taken_before = True
        self.put_nowait(job)
        job.taken_before = False

    def discard(self, job: Job) -> None:
        """Take a job out that has settled while it waited; without effect on one that is not in."""
        with suppress(ValueError):
            self._lanes[job.priority].remove(job)
