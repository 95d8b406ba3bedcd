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
from otpmail.mail.group_commit import Answer, GroupCommit, Member, wait_for_end
from otpmail.mail.idempotency import Idempotency
from otpmail.mail.rates import Counted, Rates
from otpmail.model import MailState
from otpmail.store.base import Accepted, Entry, MailStore, Request, Running

Answers = list[Answer]
Accept = Callable[[Sequence[Entry]], Coroutine[Any, Any, Answers]]


class Prepared(NamedTuple):
    """A guaranteed mail that is written, and that no store keeps yet. It holds its place and its request id."""

    job: Job
    request: Request
    place: Reservation
    counted: Counted | None = None
    """The rates that it counts for, where its caller has some."""


class Keeping:
    """Accepts mails once the store keeps them."""

    def __init__(
        self, store: MailStore, backlog: Backlog, places: Places, idempotency: Idempotency, rates: Rates
    ) -> None:
        self._store = store
        self._backlog = backlog
        self._places = places
        self._idempotency = idempotency
        self._rates = rates
        self._groups = GroupCommit(self._keep_group)

    def __repr__(self) -> str:
        return f"<Keeping {self._groups!r}, {self._idempotency!r}>"

    # A call may be cancelled, or the service stop, before the store's answer. Its mails are cancelled once they are
    # kept: the next start must not send them.

    async def keep_one(self, job: Job, fingerprint: bytes) -> Job:
        """Accept a mail in one commit with others of this turn of the loop; returns its job, or that of an earlier one.

        Raises why it was not accepted: Unavailable like the others of its commit, InvalidArgument alone.
        """
        self._places.begin_accepting(job.source, fresh=job.is_fresh)
        answer, end = await self._groups.join(job, fingerprint)
        return end if isinstance(end, Job) else await self._find_or_raise(job, answer, end)

    async def keep_with(self, job: Job, fingerprint: bytes, accept: Accept) -> Job:
        """Accept a mail as `keep_one` does, in a commit of its own, which `accept` makes and which holds more."""
        [answer], [end] = await self._accept((job,), (fingerprint,), accept)
        return end if isinstance(end, Job) else await self._find_or_raise(job, answer, end)

    async def _keep_group(self, group: Sequence[Member]) -> None:
        """Commit the mails of calls that were not cancelled before, submit those that are kept, and answer the calls.

        Each counts for its source's share until then, also one whose call is cancelled.
        """
        called = [member for member in group if not member.answer.done()]
        try:
            entries = [member.job.entry(member.fingerprint) for member in called]
            answers = await self._store.accept(entries) if entries else []
        finally:
            for job, *_ in group:
                self._places.end_accepting(job.source, fresh=job.is_fresh)
        # In the turn of the answer: a mail that is kept has its job, whatever becomes of its call from here on.
        for member, answer in zip(called, answers, strict=True):
            if not member.answer.done():
                member.answer.set_result((answer, self._submit(member.job, answer)))
            elif isinstance(answer, Accepted):
                self._cancel(member.job)

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
            await wait_for_end(keeping)  # a repeated call waits with it, and then has a mail of its own
            raise
        # In the turn of the answer: a mail that is kept has its job, whatever becomes of the call from here on.
        return answers, [self._submit(job, answer) for job, answer in zip(jobs, answers, strict=True)]

    async def _join(self, jobs: Sequence[Job], answers: Answers, ends: list[Job | CallerError]) -> None:
        """Put the jobs of earlier mails into `ends` that were not in memory."""
        for place, (job, answer, end) in enumerate(zip(jobs, answers, tuple(ends), strict=True)):
            if not isinstance(end, Job):
                ends[place] = await self._find(job, answer, end)

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
        """Free the place and the request id of a prepared mail, with its job where it has one.

        The mail counts for a rate of its caller if it was accepted. It does not if its request id found an earlier
        mail, or if all its recipients are suppressed.
        """
        job = end if isinstance(end, Job) else None
        if prepared.counted is not None and (job is not prepared.job or job.is_left_out):
            self._rates.take_back(prepared.counted)
        prepared.place.leave(is_accepted=job is not None)
        self._idempotency.end(prepared.request, job)

    async def _find_or_raise(self, job: Job, answer: Answer, end: CallerError) -> Job:
        found = await self._find(job, answer, end)
        if not isinstance(found, Job):
            raise found
        return found

    async def _find(self, job: Job, answer: Answer, end: Job | CallerError) -> Job | CallerError:
        """Return the job of an earlier mail, from the file or from another process, or why the mail has no job."""
        if not isinstance(answer, Running):
            return end
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

    def _submit(self, job: Job, answer: Answer) -> Job | CallerError:
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
