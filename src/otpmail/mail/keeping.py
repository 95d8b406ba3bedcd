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
        Raises Unavailable where none is accepted. If the call is cancelled or the service stops meanwhile, the mails
        are cancelled: the next start must not send them.
        """
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
        for answer in answers:
            if isinstance(answer, Running):
                await self._backlog.recall(answer.mail_id)
        ends = [self._submit(job, answer) for job, answer in zip(jobs, answers, strict=True)]
        for place, (job, answer) in enumerate(zip(jobs, answers, strict=True)):
            if isinstance(answer, Running) and isinstance(ends[place], CallerError):
                ends[place] = await self._of_another_process(job.caller, answer.mail_id) or ends[place]
        return ends

    async def keep_prepared(self, prepared: Sequence[Prepared]) -> list[Job | CallerError]:
        """Accept prepared mails as `keep` does, and free what they hold."""
        ends: list[Job | CallerError] = []
        try:
            ends = await self.keep([one.job for one in prepared], [one.request.fingerprint for one in prepared])
        finally:
            for place, one in enumerate(prepared):
                self.release(one, ends[place] if ends else None)
        return ends

    def release(self, prepared: Prepared, end: Job | CallerError | None = None) -> None:
        """Free the place and the request id of a prepared mail, with its job where it has one."""
        job = end if isinstance(end, Job) else None
        prepared.place.leave(is_accepted=job is not None)
        self._idempotency.end(prepared.request, job)

    async def _of_another_process(self, caller: str, mail_id: str) -> Job | None:
        """Return a mail as another process has it, which has accepted it: a repeated call need not wait for its end."""
        mail = await self._store.get(caller, mail_id)
        return None if mail is None else Job.finished(mail)

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
