"""The mails that a stop leaves unsettled: the kept, the lost, and the answers to their callers."""

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from otpmail.delivery.job import Job
from otpmail.delivery.verdict import may_copy
from otpmail.delivery.waiters import Waiters
from otpmail.model import MailState
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

    def __init__(self, store: MailStore, waiters: Waiters, *, on_uncertain: Literal["retry", "fail"]) -> None:
        self._store = store
        self._waiters = waiters
        self._on_uncertain = on_uncertain

    def __repr__(self) -> str:
        return f"<Promises in {self._store!r}>"

    def is_promised(self, job: Job) -> bool:
        """Whether a caller relies on the job to go on, so that its loss is an error."""
        return job.guaranteed or self._waiters.is_kept(job)

    def is_kept(self, job: Job) -> bool:
        """Whether the job outlives this process."""
        return job.guaranteed and self._store.durable

    def close(self, jobs: Iterable[Job], *, release: Callable[[Job, str], None], fail: Callable[[Job], None]) -> Closed:
        """Release the jobs that a stop leaves and the store keeps, let the others fail, and count both.

        The next start finds a released mail in the store. One that the relay may have accepted is released only if a
        further copy is allowed.
        """
        kept = failed = lost = uncertain = 0
        for job in jobs:
            if job.state is MailState.SENDING:  # the relay may accept it yet, while its connection is closed
                job.uncertain = job.uncertain.union(job.offered)
                job.copies += 1
            if self.is_kept(job) and (job.state is MailState.QUEUED or may_copy(job, self._on_uncertain)):
                release(job, STOPPED)
                kept += 1
            else:
                promised = self.is_promised(job)
                failed += 1
                lost += promised
                uncertain += promised and bool(job.uncertain)
                job.explain(STOPPED)
                fail(job)
        return Closed(kept, failed, lost, uncertain)

    def unkept(self, jobs: Iterable[Job]) -> int:
        """How many of the mails that callers rely on would be lost if the process ended now."""
        return sum(self.is_promised(job) and not self.is_kept(job) for job in jobs)
