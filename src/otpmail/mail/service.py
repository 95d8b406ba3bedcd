"""Sends mails: checks who may send from where, writes the mail, and hands it to delivery."""

import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from time import monotonic, time_ns

from otpmail.address import Address
from otpmail.callers import Call
from otpmail.compose.draft import Limits
from otpmail.compose.headers import dedup_field
from otpmail.compose.message import compose, compose_in_steps
from otpmail.cooperate import Cooperator, Steps
from otpmail.delivery.backlog import Backlog
from otpmail.delivery.closing import STOPPED
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.waiters import DoneCallback, Waiters
from otpmail.errors import InvalidArgument, Unavailable
from otpmail.limits.memory import HELD
from otpmail.mail.admission import Admission, Reserver
from otpmail.mail.forgetting import Forgetting
from otpmail.mail.idempotency import Idempotency, Repeatable, check_request_id
from otpmail.mail.keeping import Keeping, Prepared
from otpmail.mail.listing import Listing
from otpmail.mail.lookup import Lookup
from otpmail.mail.operators import Operators
from otpmail.mail.rates import Rates
from otpmail.mail.retrying import Retrying
from otpmail.mail.senders import Senders
from otpmail.mail.submission import Submission, priority_denied
from otpmail.mail.unsent import Unsent
from otpmail.mail.waiting import Outcomes
from otpmail.model import Envelope, Mail, Priority
from otpmail.settings import MailSettings
from otpmail.smtp.transaction import GROUP
from otpmail.store.base import MailStore, Request


class MailService:
    """Accepts mails, and returns their state while they are remembered. Build it inside a running loop.

    A draft for it is made within its `limits`; `admission` decides when a mail may come in. The `cooperator` runs what
    takes long to check or write, so that everybody else's mails go on meanwhile.
    """

    def __init__(
        self,
        settings: MailSettings,
        lifecycle: Lifecycle,
        waiters: Waiters,
        store: MailStore,
        admission: Admission,
        *,
        backlog: Backlog,
        rates: Rates,
        cooperator: Cooperator | None = None,
    ) -> None:
        self._wait_seconds = settings.mail_wait_seconds
        self._most_seconds = settings.mail_ttl
        self.limits = Limits(size=settings.mail_max_bytes, recipients=settings.mail_max_recipients)
        self._senders = Senders(settings)
        self._dedup_header = settings.email_dedup_header
        self._domain = self._senders.default.domain
        self._lifecycle, self.suppressions = lifecycle, lifecycle.suppressions
        self.leave_out = Unsent(lifecycle, store.now, domain=self._domain).leave_out
        self._waiters = waiters
        self._store = store
        self.is_durable = store.durable
        self._now = store.now
        self._idempotency = Idempotency(store, lifecycle, backlog, wait_seconds=settings.mail_wait_seconds)
        self.resumed = self._idempotency.resumed
        self._keeping = Keeping(store, backlog, admission.places, self._idempotency, rates)
        self.keep, self.drop = self._keeping.keep_prepared, self._keeping.release
        self.keep_with = self._keeping.keep_with
        self.outcome = Outcomes(lifecycle, waiters, monotonic, most_seconds=settings.mail_wait_seconds).wait
        lookup = Lookup(store, lifecycle, backlog, waiters, self._idempotency)
        self.wait = waiters.add_waiter  # a job is abandoned, and cancelled, once all its waiters have gone
        self.get, self.watch, self.cancel = lookup.get, lookup.watch, lookup.cancel
        self.retry = Retrying(store, lifecycle, backlog, admission, most_seconds=self._most_seconds).retry
        self.act_for = Operators(store, lifecycle, backlog).act_for
        self.forgetting = Forgetting(store, lifecycle, backlog, admission.turns, most_seconds=settings.mail_ttl)
        self.list = Listing(store, lifecycle, backlog, admission.turns).list
        self._ids = _ids()
        self.cooperator = cooperator or Cooperator(give_way=admission.turns.wait)
        self.admission = admission
        self.rates = rates

    def __repr__(self) -> str:
        return f"<MailService {self._lifecycle!r}, {self.admission!r}, {self._keeping!r}>"

    # Sending.

    async def send(self, call: Call, submission: Submission) -> Mail:
        """Send a mail: returns it settled, or as `outcome` does; with WaitFor.QUEUE once it is accepted.

        Raises as `accept` and `outcome` do. Cancelling this call cancels the mail if it is queued and nobody else waits
        for it.
        """
        guaranteed = submission.wait_for.guarantees
        accepting = self.accept(call, submission)
        del submission  # so that its content does not wait for the relay beside the octets made of it
        job = await accepting
        if (held := HELD.get()) is not None:
            held.release()  # from here on the job counts itself
        return job.mail if guaranteed else await self.outcome(call, job)

    def accept(self, call: Call, submission: Submission, reserver: Reserver | None = None) -> Awaitable[Job]:
        """Check a mail and accept it; from then on it settles. Await what is returned.

        Raises InvalidArgument, PermissionDenied or LimitExceeded; nothing is accepted then. Raises Unavailable
        where the service stops, or the caller would wait for a relay that is down.

        A repeated request id returns its first job.
        """
        if submission.priority not in call.caller.may.priorities:
            raise priority_denied(call.caller, submission.priority)
        reserver = reserver or self.admission
        if not submission.request_id:
            return self._reserve_and_accept(call, submission, reserver, next(self._ids))
        with_content = submission.wait_for.guarantees and self._store.durable
        accept = partial(self._reserve_and_accept, call, submission, reserver)
        return self.once(call, submission, accept, with_content=with_content)

    def once(
        self, call: Call, request: Repeatable, accept: Callable[[str], Awaitable[Job]], *, with_content: bool = False
    ) -> Awaitable[Job]:
        """Find the job of the first call with this request id; if it is the first, what `accept` returns.

        `accept` gets the id of the new mail. See `Idempotency.once` for `with_content`, and what is raised.
        """
        mail_id = next(self._ids)
        request_id = request.request_id
        if not request_id:
            return accept(mail_id)
        check_request_id(request_id)
        return self._idempotency.once(
            Request(call.caller.name, request_id, request.fingerprint),
            mail_id,
            accept,
            with_content=with_content,
        )

    async def accept_reserved(
        self, call: Call, submission: Submission, mail_id: str, *, most_seconds: float | None = None, keep: bool = True
    ) -> Job:
        """Accept a mail that has its place already (`admission.reserve`). Raises as `accept` does.

        Without a ttl it is tried for `most_seconds`, MAIL_TTL unless given. With `keep` false a durable store does not
        have a guaranteed mail yet, nor has delivery.
        """
        draft = submission.draft
        author, seconds = self._check(call, submission, most_seconds)
        now = self._now()
        domain = self._domain if author is self._senders.default else author.domain
        message_id = f"<{draft.message_id or f'{mail_id}@{domain}'}>"
        dedup = self._dedup_header and dedup_field(self._dedup_header, draft, mail_id)
        if draft.is_large:
            steps = compose_in_steps(draft, author, message_id, now, self.limits, mail_id=mail_id, extra_header=dedup)
            envelope = await self._compose_large(call, submission, steps)
        else:
            envelope = compose(draft, author, message_id, now, self.limits, mail_id=mail_id, extra_header=dedup)
        if submission.relay:
            envelope = replace(envelope, relay=submission.relay)
        job = Job(
            mail_id,
            call.caller.name,
            message_id,
            now,
            envelope=envelope,
            priority=submission.priority,
            deadline=now + seconds,
            guaranteed=submission.wait_for.guarantees,
            request_id=submission.request_id,
            issued=submission.issued,
            labels=submission.labels,
            source=call.source,
            trace=call.trace,
        )
        if self.suppressions.store.count:
            await self._leave_out_suppressed(job)
        if job.guaranteed and self._store.durable:
            return await self._keeping.keep_one(job, submission.fingerprint) if keep else job
        self._lifecycle.submit(job)
        return job

    def _check(self, call: Call, submission: Submission, most_seconds: float | None) -> tuple[Address, float]:
        """Return whom a mail is from, and for how many seconds it is tried. Raises as `accept` does."""
        draft, ttl = submission.draft, submission.ttl
        # fast path: nearly every mail is from EMAIL_FROM, 0.3 us; held to the full path by tests/mail/test_senders.py
        usual = draft.from_ is None and draft.sender is None and not draft.return_path
        if usual or submission.issued is not None:  # the mail of a code is from whom the caller's profile says
            author = draft.from_ or self._senders.default
        else:
            author = self._senders.author_of(draft, call.caller)
        if ttl is None:
            return author, self._most_seconds if most_seconds is None else most_seconds
        if ttl <= 0:
            raise InvalidArgument("ttl", "must be more than 0 seconds")
        return author, min(ttl, self._most_seconds)

    async def _compose_large(self, call: Call, submission: Submission, steps: Steps[Envelope]) -> Envelope:
        """Compose a mail in steps. It takes tenths of a second, and nobody's code may wait for that."""
        source, fresh = call.source or call.caller.name, submission.priority is Priority.URGENT
        with self.admission.places.accepting(source, fresh=fresh):
            return await self.cooperator.run(steps)

    async def _leave_out_suppressed(self, job: Job) -> None:
        if job.issued is not None:  # nothing keeps the mail of a code back, and its delivery ends what is known
            self.suppressions.look(job)
        elif len(job.pending) <= GROUP:
            self.suppressions.leave_out(job)
        else:
            await self.cooperator.run(self.suppressions.leave_out_in_steps(job))

    def remember(self, mail: Mail) -> Job:
        """Keep a mail in its final state that is not to be sent, with its request id. Observers do not see it."""
        self._store.settle(mail)
        return Job.finished(mail)

    # For streams, which have no task for each mail.

    async def prepare(
        self, call: Call, submission: Submission, reserver: Reserver, on_wait: Callable[[], None]
    ) -> Prepared | None:
        """Write a guaranteed mail for a durable store, which then keeps many in one commit (`keep`), or `drop` it.

        Returns None where a call with its request id runs. `on_wait` is called before it waits for a place. Raises as
        `accept` does.
        """
        if submission.priority not in call.caller.may.priorities:
            raise priority_denied(call.caller, submission.priority)
        check_request_id(submission.request_id)
        request = Request(call.caller.name, submission.request_id, submission.fingerprint)
        if not self._idempotency.begin(request):
            return None
        try:
            place = reserver.reserve(call, submission.wait_for, submission.priority)
            if place.is_awaited:
                on_wait()
                await place.wait()
            try:
                mail_id = next(self._ids)
                counted = await self.rates.count(call.caller) if call.caller.may.rates else None
                try:
                    job = await self.accept_reserved(call, submission, mail_id, keep=False)
                except BaseException:
                    if counted is not None:
                        self.rates.take_back(counted)
                    raise
            except BaseException:
                place.leave(is_accepted=False)
                raise
        except BaseException:
            self._idempotency.end(request, None)
            raise
        return Prepared(job, request, place, counted)

    def stop_waiting(self, job: Job, callback: DoneCallback) -> None:
        """Do not call `callback` any more. A queued job for which nobody else waits is cancelled."""
        self._waiters.remove_waiter(job, callback)
        self._lifecycle.drop_if_abandoned(job)

    def call_when_done(self, job: Job, callback: DoneCallback) -> None:
        """Call `callback` at the job's end: now, if it has settled. It does not keep the job from being abandoned."""
        if job.settled or job.id in self._lifecycle.jobs:
            self._waiters.add_done_callback(job, callback)
        else:  # it waits in the store, or a stop has released it since the caller was given it
            callback(job, Unavailable(STOPPED))

    async def _reserve_and_accept(self, call: Call, submission: Submission, reserver: Reserver, mail_id: str) -> Job:
        place = reserver.reserve(call, submission.wait_for, submission.priority)
        if place.is_awaited:
            await place.wait()
        try:
            # The results of a stream are final ones, so its mails have no longer than another caller waits.
            ends_soon = reserver is not self.admission and not submission.wait_for.guarantees
            most = self._wait_seconds if ends_soon else None
            accept = partial(self.accept_reserved, call, submission, mail_id, most_seconds=most)
            job = await (self.rates.counted(call.caller, mail_id, accept) if call.caller.may.rates else accept())
        except BaseException:
            place.leave(is_accepted=False)
            raise
        place.leave(is_accepted=True)
        return job


def _ids() -> Iterator[str]:
    """Yield ids: the milliseconds since the epoch in 48 bits, as UUIDs of version 7 have them, and 80 random bits.

    So the ids of one time lie together in the index of a store, and a commit changes few of its pages (RFC 9562, 5.7).
    The system is asked for many random bits at a time: each call costs as much as forty ids.
    """
    while True:
        digits = secrets.token_hex(10 * 64)
        for start in range(0, len(digits), 20):
            yield f"{time_ns() // 1_000_000:012x}{digits[start : start + 20]}"
