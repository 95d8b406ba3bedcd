"""The queue between the callers and the workers: urgent mails ahead of normal ahead of bulk, first in first out."""

import asyncio
from collections import deque
from typing import Self

from otpmail.model import Envelope, Mail, Priority, RecipientResult


class Job:
    """One accepted mail on its way: what is to be sent, what the relay said so far, and who waits for the end.

    `mail` is replaced as its state changes; `settled` gets the final one. `deadline` is on the loop's clock.
    `promised` jobs are kept trying whether or not anybody waits. `losses` counts connections that ended under it.
    """

    __slots__ = (
        *("callers", "deadline", "envelope", "expiry", "losses", "mail", "pending", "priority"),
        *("promised", "results", "retry", "settled", "taken_before", "watchers"),
    )

    def __init__(self, mail: Mail, envelope: Envelope, priority: Priority, deadline: float, *, promised: bool) -> None:
        self.mail = mail
        self.envelope = envelope
        self.priority = priority
        self.deadline = deadline
        self.promised = promised
        self.callers = 0
        self.losses = 0
        self.taken_before = False
        self.pending = envelope.recipients
        self.results: dict[str, RecipientResult] = {}
        self.settled: asyncio.Future[Mail] = asyncio.get_running_loop().create_future()
        self.expiry: asyncio.TimerHandle | None = None
        self.retry: asyncio.TimerHandle | None = None
        self.watchers: list[asyncio.Queue[Mail]] = []

    def __repr__(self) -> str:
        return f"<Job {self.mail.id} {self.mail.state.name} {self.priority.name} {len(self.pending)} pending>"

    @classmethod
    def finished(cls, mail: Mail) -> Self:
        """A job that has nothing left to do: what a repeated request finds."""
        job = cls(mail, _NOTHING, Priority.NORMAL, 0.0, promised=False)
        job.settled.set_result(mail)
        return job

    @property
    def given_up(self) -> bool:
        """Nobody waits for it and nobody was promised it."""
        return not self.promised and self.callers == 0

    def change(self, mail: Mail) -> None:
        """Take the next state, and show it to whoever watches."""
        self.mail = mail
        for watcher in self.watchers:
            watcher.put_nowait(mail)


_NOTHING = Envelope("", (), b"")


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
        """How many jobs are in the lanes, cancelled ones included until a worker passes over them."""
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
