"""Hands guaranteed mails to a durable store, one or many in one commit, and to delivery once they are kept."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

from otpmail.delivery.backlog import Backlog
from otpmail.delivery.job import Job
from otpmail.errors import CallerError, Unavailable
from otpmail.limits.places import Places
from otpmail.mail.admission import Reservation
from otpmail.mail.idempotency import Idempotency
from otpmail.model import MailState
from otpmail.store.base import Accepted, Conflict, Earlier, Entry, MailStore, Request, Running

Answers = list[Accepted | Earlier | Running | Conflict]
Accept = Callable[[Sequence[Entry]], Coroutine[Any, Any, Answers]]


class Prepared(NamedTuple):
    """A guaranteed mail that is written, and that no store keeps yet. It holds its place and its request id."""

    job: Job
    request: Request
    place: Reservation


class Keeping:
    """Accepts mails once the store keeps them."""

    def __init__(self, store: MailStore, backlog: Backlog, places: Places, idempotency: Idempotency) -> None:
        self._store = store
        self._backlog = backlog
        self._places = places
        self._idempotency = idempotency

    def __repr__(self) -> str:
        return f"<Keeping in {self._store!r}>"

    async def keep(
        self, jobs: Sequence[Job], fingerprints: Sequence[bytes], accept: Accept | None = None
    ) -> list[Job | CallerError]:
        """Accept mails in one commit. Returns for each its job, that of an earlier call, or why it was not accepted.

        `accept` is the store's, unless the commit holds more than the mails.
        Raises Unavailable where none is accepted. If the call is cancelled or the service stops before the store's
        answer, the mails are cancelled: the next start must not send them.
        """
        answers, ends = await self._accept(jobs, fingerprints, accept)
        await self._join(jobs, answers, ends)
        return ends

    async def _accept(
        self, jobs: Sequence[Job], fingerprints: Sequence[bytes], accept: Accept | None = None
    ) -> tuple[Answers, list[Job | CallerError]]:
        """Commit the mails and submit those that are kept; an earlier mail may have to be found yet (`_join`)."""
        entries = [job.entry(fingerprint) for job, fingerprint in zip(jobs, fingerprints, strict=True)]
        keeping = asyncio.ensure_future((accept or self._store.accept)(entries))
        try:
            with ExitStack() as counted:
                for (source, fresh), mails in Counter([(job.source, job.is_fresh) for job in jobs]).items():
                    counted.enter_context(self._places.accepting(source, fresh=fresh, mails=mails))
                answers = await asyncio.shield(keeping)
        except (asyncio.CancelledError, Unavailable):
            keeping.add_done_callback(partial(self._cancel_kept, jobs))
            await asyncio.wait((keeping,))  # a repeated call waits with it, and then has a mail of its own
            raise
        # In the turn of the answer: a mail that is kept has its job, whatever becomes of the call from here on.
        return answers, [self._submit(job, answer) for job, answer in zip(jobs, answers, strict=True)]

    async def _join(self, jobs: Sequence[Job], answers: Answers, ends: list[Job | CallerError]) -> None:
        """Put the jobs of earlier mails into `ends` that were not in memory."""
        for place, (job, answer) in enumerate(zip(jobs, answers, strict=True)):
            if isinstance(answer, Running) and not isinstance(ends[place], Job):
                ends[place] = await self._find(job, answer)

    async def keep_prepared(self, prepared: Sequence[Prepared]) -> list[Job | CallerError]:
        """Accept prepared mails as `keep` does, and free what they hold."""
        ends: list[Job | CallerError] = []
        try:
            jobs = [one.job for one in prepared]
            answers, ends = await self._accept(jobs, [one.request.fingerprint for one in prepared])
            await self._join(jobs, answers, ends)
        finally:
            for place, one in enumerate(prepared):
                self.release(one, ends[place] if ends else None)
        return ends

    def release(self, prepared: Prepared, end: Job | CallerError | None = None) -> None:
        """Free the place and the request id of a prepared mail, with its job where it has one."""
        job = end if isinstance(end, Job) else None
        prepared.place.leave(is_accepted=job is not None)
        self._idempotency.end(prepared.request, job)

    async def _find(self, job: Job, answer: Running) -> Job | CallerError:
        """Return the job of an earlier mail, from the file or from another process, or why the mail has no job."""
        try:
            await self._backlog.recall(answer.mail_id)
            end = self._submit(job, answer)
            if isinstance(end, Job):
                return end
            # Another process has accepted it, so a repeated call need not wait for its end.
            mail = await self._store.get(job.caller, answer.mail_id)
        except CallerError as error:
            return error
        return end if mail is None else Job.finished(mail)

    def _submit(self, job: Job, answer: Accepted | Earlier | Running | Conflict) -> Job | CallerError:
        try:
            earlier = self._idempotency.job_of(answer)
            if earlier is not None:
                return earlier
            self._backlog.submit(job)
        except CallerError as error:
            if isinstance(answer, Accepted):
                self._cancel(job)
            return error
        return job

    def _cancel_kept(self, jobs: Sequence[Job], keeping: "asyncio.Future[Answers]") -> None:
        if not keeping.cancelled() and keeping.exception() is None:
            for job, answer in zip(jobs, keeping.result(), strict=True):
                if isinstance(answer, Accepted):
                    self._cancel(job)

    def _cancel(self, job: Job) -> None:
        self._store.settle(job.settle(MailState.CANCELLED, (), self._store.now()), keep_request=False)
