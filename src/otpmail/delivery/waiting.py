"""Mails that wait in the store (`delivery.backlog`), as memory holds them: a part of each, and some of them whole."""

from collections import OrderedDict, deque
from collections.abc import Mapping

from otpmail.delivery.job import Job
from otpmail.model import Priority

MOST_HELD = 4_000
"""Mails that are in memory whole while they wait, so that under load none need be read again, which takes 50 us."""

HELD_OCTETS = 16 << 20
"""Octets that these take at most."""

WAITING_OCTETS = 512
"""Octets that count for a mail that waits in the store: what stands here, in `Places` and in the store's own index."""


class Waiting:
    """One mail that waits in the store; the order is that of the deadlines."""

    __slots__ = ("deadline", "id", "priority", "source")

    def __init__(self, mail_id: str, priority: Priority, deadline: float, source: str) -> None:
        self.id = mail_id
        self.priority = priority
        self.deadline = deadline
        self.source = source

    def __repr__(self) -> str:
        return f"<Waiting {self.id} {self.priority.name}>"

    def __lt__(self, other: "Waiting") -> bool:
        return self.deadline < other.deadline


class Lanes:
    """The mails that wait for their turn, a lane for each priority, in which their sources take turns.

    One that has left before its turn stays in its lane until it is met there, and counts no more in `lengths`.
    """

    def __init__(self) -> None:
        self._lanes: tuple[OrderedDict[str, deque[Waiting]], ...] = tuple(OrderedDict() for _ in Priority)
        self.lengths = [0 for _ in Priority]

    def __repr__(self) -> str:
        return f"<Lanes of {self.lengths} mails>"

    def add(self, mail: Waiting) -> None:
        """Put a mail behind those of its source."""
        lane = self._lanes[mail.priority]
        if mail.source not in lane:
            lane[mail.source] = deque()
        lane[mail.source].append(mail)
        self.lengths[mail.priority] += 1

    def leave(self, mail: Waiting) -> None:
        """Count a mail no more that has been taken up."""
        self.lengths[mail.priority] -= 1

    def next_of(self, priority: Priority, most: int, waiting: Mapping[str, Waiting]) -> list[str]:
        """Return the ids of the next `most` mails of a lane that are still `waiting`, and take them out of it."""
        lane = self._lanes[priority]
        ids: list[str] = []
        while lane and len(ids) < most:
            source, mails = lane.popitem(last=False)
            mail = mails.popleft()
            if mails:
                lane[source] = mails
            if waiting.get(mail.id) is mail:
                ids.append(mail.id)
        return ids


class HeldJobs:
    """The jobs of mails that wait in the store and are in memory all the same: `most`, of `most_octets` together."""

    def __init__(self, most: int, most_octets: int) -> None:
        self._most = most
        self._most_octets = most_octets
        self._jobs: dict[str, Job] = {}
        self.octets = 0

    def __repr__(self) -> str:
        return f"<HeldJobs {len(self._jobs)} jobs of {self.octets} octets>"

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, mail_id: str) -> bool:
        return mail_id in self._jobs

    def add(self, job: Job) -> int:
        """Hold a job where there is room; returns its octets, 0 where it is not held."""
        if len(self._jobs) >= self._most or self.octets + job.octets > self._most_octets:
            return 0
        self._jobs[job.id] = job
        self.octets += job.octets
        return job.octets

    def pop(self, mail_id: str) -> Job | None:
        """Return the job of a mail, and hold it no more; None where it is not held."""
        job = self._jobs.pop(mail_id, None)
        if job is not None:
            self.octets -= job.octets
        return job
