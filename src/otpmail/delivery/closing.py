"""The mails that a stop leaves unsettled: which outlive the process, which are lost, and what their callers get."""

from collections.abc import Iterable
from typing import NamedTuple

from otpmail.delivery.job import Job
from otpmail.delivery.waiters import Waiters
from otpmail.store.base import MailStore

STOPPED = "the service stopped before the mail could be sent"
TAKEN_OVER = "another replica has taken the mail over"


class Closed(NamedTuple):
    """How many unsettled mails a stop left: `kept` by the store for the next start, or `failed`.

    `lost` are those of the failed ones that were guaranteed, or whose callers were answered that they go on. The relay
    may have accepted `uncertain` of these.
    """

    kept: int
    failed: int
    lost: int = 0
    uncertain: int = 0


class Promises:
    """Knows which mails callers rely on, and which of these the store keeps."""

    def __init__(self, store: MailStore, waiters: Waiters) -> None:
        self._store = store
        self._waiters = waiters

    def __repr__(self) -> str:
        return f"<Promises in {self._store!r}>"

    def is_promised(self, job: Job) -> bool:
        """Whether a caller relies on the job to go on, so that its loss is an error."""
        return job.guaranteed or self._waiters.is_kept(job)

    def is_kept(self, job: Job) -> bool:
        """Whether the job outlives this process."""
        return job.guaranteed and self._store.durable

    def unkept(self, jobs: Iterable[Job]) -> int:
        """How many of the mails that callers rely on would be lost if the process ended now."""
        return sum(self.is_promised(job) and not self.is_kept(job) for job in jobs)
