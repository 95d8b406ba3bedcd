"""Has a durable store note some attempts before their first octet leaves. So the next process knows which a crash met.

With EMAIL_ON_UNCERTAIN=fail it notes all attempts, since no second copy may be sent. With `retry` it notes those at
mails that an earlier process left when it was killed, since one of them may have ended that process.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from otpmail.delivery.job import Job
from otpmail.errors import Unavailable
from otpmail.model import MailState, RecipientResult
from otpmail.store.base import Entry, MailStore

MOST_DEATHS = 3
"""How many processes may have ended over a mail before it is not sent any more."""

_SUSPECT = 2  # deaths from which on a mail is sent while no other suspect is, so that the next death has one cause
_ENDED = "the service ended while it was sending this mail, so the relay may have it"
_PARKED = f"not sent again: {MOST_DEATHS} times the service ended while it was sending this mail"


class Attempts:
    """Sends suspects one at a time. Its whole state: the one that is being sent, and those that wait for it.

    A suspect is a mail that was in flight when two processes ended. `jobs` are those that are open. `wait` lets one of
    them wait for some seconds, and `put_back` puts one at the front of its lane. `may_send` decides again about one
    that was started (`DeliveryHandler.may_send`).
    """

    def __init__(
        self,
        store: MailStore,
        jobs: Mapping[str, Job],
        wait: Callable[[Job, float], None],
        put_back: Callable[[Job], None],
        may_send: Callable[[Job], bool],
        *,
        on_uncertain: Literal["retry", "fail"],
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._wait = wait
        self._put_back = put_back
        self._may_send = may_send
        self.notes_all = store.durable and on_uncertain == "fail"
        self._suspect: Job | None = None
        self._held: dict[Job, None] = {}

    def __repr__(self) -> str:
        return f"<Attempts {self._suspect!r}, {len(self._held)} suspects wait>"

    def take_over(self, job: Job, entry: Entry) -> MailState | None:
        """Count what an earlier process may have done with a mail; returns how it settles now, None if it is sent."""
        if entry.progress.begun:
            job.uncertain = job.uncertain.union(job.offered)
            job.deaths += 1
            job.copies += 1
        elif entry.orphaned and not job.deaths and not self.notes_all:
            job.deaths = 1
            job.copies += 1
        job.is_noted_first = self.notes_all or job.deaths > 0
        if job.deaths >= MOST_DEATHS:
            _explain(job, _PARKED)
            return MailState.FAILED
        if entry.progress.begun and self.notes_all:
            _explain(job, _ENDED)
            return MailState.UNCERTAIN
        return None

    def forbids(self, job: Job) -> bool:
        """Whether a mail may not be sent whose request id an earlier process had claimed when it ended.

        One that is guaranteed may: it was not sent before the store had it, and the store does not.
        """
        if not self.notes_all or job.guaranteed:
            return False
        _explain(job, _ENDED)
        return True

    def holds(self, job: Job) -> bool:
        """Hold up a suspect while another one is being sent; returns whether it does."""
        if job.deaths < _SUSPECT:
            return False
        if self._suspect is None:
            self._suspect = job
        elif self._suspect is not job:
            self._held[job] = None
            return True
        return False

    async def begin(self, jobs: Sequence[Job]) -> list[Job]:
        """Have the store note that these jobs, which were started, are about to be sent; returns those that may be.

        Meanwhile a stop may have let go of some, another process may have taken some over, or deadlines have passed.
        """
        progresses = {job.id: replace(job.progress, begun=True) for job in jobs if job.is_noted_first}
        try:
            await self._store.begin_attempts(progresses)
        except Unavailable as error:
            for job in jobs:
                if job.id in self._jobs:
                    self._wait(job, error.retry_after)
            return []
        for job in jobs:
            job.is_begun = job.is_noted_first
        may_go = [
            job for job in reversed(jobs) if self._may_send(job)
        ]  # the others return to the front, in their order
        return may_go[::-1]

    def end(self, job: Job) -> None:
        """Take the note back, since the job waits again, and let the next suspect go."""
        if job.is_begun:
            job.is_begun = False
            self._store.deferred(job.id, job.progress)
        self.forget(job)

    def forget(self, job: Job) -> None:
        """Let the next suspect go; this job has settled, or is this process's no more."""
        self._held.pop(job, None)
        if self._suspect is job:
            self._suspect = next(iter(self._held), None)
            if self._suspect is not None:
                del self._held[self._suspect]
                self._put_back(self._suspect)


def _explain(job: Job, words: str) -> None:
    job.results |= {address: RecipientResult(address, reply=words) for address in job.pending}
