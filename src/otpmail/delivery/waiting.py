"""What is in memory of mails that wait in the store (`delivery.backlog`): a part of each, and some of them whole."""

from otpmail.delivery.job import Job
from otpmail.model import Priority

HELD = 4_000
"""Mails that are in memory whole while they wait, so that under load none need be read again, which takes 50 us."""

_HELD_OCTETS = 16 << 20

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


class Held:
    """The jobs of mails that wait in the store and are in memory all the same: `most`, and 16 MiB of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._jobs: dict[str, Job] = {}
        self.octets = 0

    def __repr__(self) -> str:
        return f"<Held {len(self._jobs)} jobs of {self.octets} octets>"

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, mail_id: str) -> bool:
        return mail_id in self._jobs

    def add(self, job: Job) -> int:
        """Hold a job where there is room; returns its octets, 0 where it is not held."""
        if len(self._jobs) >= self._most or self.octets + job.octets > _HELD_OCTETS:
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
