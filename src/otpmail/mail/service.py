"""The use cases of mail: send, look up, watch, cancel."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator
from time import time
from typing import Protocol

from otpmail.address import Address, parse_mailbox
from otpmail.compose.draft import LARGE, Draft, Limits
from otpmail.compose.message import compose
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, QueueFull, Unavailable
from otpmail.model import ANONYMOUS, Envelope, IssuedCode, Mail, MailState, Priority, WaitFor
from otpmail.settings import MailSettings
from otpmail.store.base import MailStore
from otpmail.values import frozen

MAX_REQUEST_ID = 128
MAX_MAIL_ID = 64


class RelayState(Protocol):
    """What the use cases need to know of the relay."""

    @property
    def down(self) -> bool:
        """Dialling has failed and nothing is open."""

    @property
    def retry_after(self) -> float:
        """Seconds until the next dial, while it is down."""


@frozen(kw_only=True)
class Submission:
    """A mail that somebody wants sent, and on what terms.

    `ttl` is in seconds, None for the default. `fingerprint` tells whether a repeated `request_id` means the same mail.
    """

    draft: Draft
    caller: str = ANONYMOUS
    priority: Priority = Priority.NORMAL
    wait_for: WaitFor = WaitFor.RELAY
    ttl: float | None = None
    request_id: str = ""
    fingerprint: bytes = b""
    issued: IssuedCode | None = None


class MailService:
    """Accepts mails, and answers for them while they are remembered. `now` is seconds since the epoch."""

    def __init__(
        self,
        settings: MailSettings,
        delivery: Lifecycle,
        store: MailStore,
        relay: RelayState,
        *,
        now: Callable[[], float] = time,
    ) -> None:
        self._queue_size = settings.queue_size
        self._wait_seconds = settings.mail_wait_seconds
        self._most_seconds = settings.mail_ttl
        self._allowed = settings.email_from_allowed
        self._delivery = delivery
        self._store = store
        self._relay = relay
        self._now = now
        self._crowd = settings.queue_size - settings.queue_size // 10
        self._limits = Limits(size=settings.mail_max_bytes, recipients=settings.mail_max_recipients)
        self._sender = parse_mailbox(settings.email_from, "EMAIL_FROM")
        self._ids = _ids()
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<MailService {self._delivery!r}>"

    @property
    def limits(self) -> Limits:
        """The limits within which a draft is made for this service."""
        return self._limits

    async def send(self, order: Submission) -> Mail:
        """Send a mail: returns it settled, or with WaitFor.QUEUE as soon as it is accepted.

        Raises as `accept` does. A cancelled call takes the mail back if it is still waiting and nobody was promised it.
        """
        job = await self.accept(order)
        return job.mail if order.wait_for.guarantees else await self.outcome(job)

    async def accept(self, order: Submission) -> Job:
        """Check a mail and take it on; from then on it settles.

        Raises InvalidArgument, PermissionDenied, QueueFull, and Unavailable when the caller would wait for a relay that
        is known to be away, or the service stops; nothing was accepted then. A repeated request id returns the job it
        was first given.
        """
        sender = self._permitted_sender(order.draft.sender) if order.draft.sender else self._sender
        lifetime = self._lifetime(order)
        now = self._now()
        mail_id = next(self._ids)
        message_id = f"<{mail_id}@{sender.domain}>"
        asked = order.draft, sender, message_id, now, self._limits
        envelope: Envelope | None = None
        if order.draft.size > LARGE:  # it takes tenths of a second, for which nobody's code is to wait
            earlier = await self.earlier(order.caller, order.request_id, order.fingerprint)
            if earlier is not None:
                return earlier
            self.refuse_if_hopeless(order.wait_for)
            envelope = await asyncio.to_thread(compose, *asked)
        _check_request_id(order.request_id)
        mail = Mail(mail_id, order.caller, message_id, now, order.request_id, issued=order.issued)
        known = await self._store.add(mail, order.fingerprint)
        if known is not None:
            return self._job_of(known)
        try:  # nothing waits from here on: whoever repeats the request finds its job
            self.refuse_if_hopeless(order.wait_for)
            deadline = self._loop.time() + lifetime
            job = Job(mail, envelope or compose(*asked), order.priority, deadline, guaranteed=order.wait_for.guarantees)
            self._delivery.submit(job)
        except BaseException:
            self._store.forget_request(mail)
            raise
        return job

    async def earlier(self, caller: str, request_id: str, fingerprint: bytes) -> Job | None:
        """The job that was given this request id before. Raises InvalidArgument when it was for another mail."""
        if not request_id:
            return None
        _check_request_id(request_id)
        mail = await self._store.find(caller, request_id, fingerprint)
        return None if mail is None else self._job_of(mail)

    def refuse_if_hopeless(self, wait_for: WaitFor) -> None:
        """Raise QueueFull, or Unavailable where the caller would wait for a relay that is away."""
        if len(self._delivery) >= self._queue_size:
            raise QueueFull(self._queue_size)
        self.refuse_if_away(wait_for)

    def refuse_if_away(self, wait_for: WaitFor) -> None:
        """Raise Unavailable where the caller would wait for a relay that is away."""
        if not wait_for.guarantees and self._relay.down:
            raise Unavailable("the relay can't be reached at the moment", retry_after=max(1.0, self._relay.retry_after))

    @property
    def crowded(self) -> bool:
        """Whether only the last tenth of the queue is left: that is for single calls, which can't wait for a place."""
        return len(self._delivery) >= self._crowd

    def next_end(self) -> asyncio.Future[None]:
        """A future for the moment in which the next mail settles."""
        return self._delivery.next_end()

    async def outcome(self, job: Job) -> Mail:
        """Wait until the job settles. Raises Unavailable when the service stops first."""
        self.add_waiter(job)
        try:
            return await job.end(self._loop)
        finally:
            self.leave(job)

    def add_waiter(self, job: Job) -> None:
        """One more waits for the end of the job, who calls `leave` if that has not come."""
        job.callers += 1

    def leave(self, job: Job, times: int = 1) -> None:
        """So many do not wait any more: a mail that nobody waits for, and nobody was promised, is given up."""
        job.callers -= times
        self._delivery.give_up(job)

    async def get(self, caller: str, mail_id: str) -> Mail:
        """What has become of a mail. Raises NotFound, and InvalidArgument for what is too long to be an id."""
        if len(mail_id) > MAX_MAIL_ID:
            raise InvalidArgument("id", f"is longer than {MAX_MAIL_ID} characters")
        job = self._delivery.find(mail_id)
        mail = job.mail if job is not None else await self._store.get(caller, mail_id)
        if mail is None or mail.caller != caller:
            raise NotFound("there is no such mail, or it settled too long ago")
        return mail

    async def watch(self, caller: str, mail_id: str) -> AsyncGenerator[Mail, None]:
        """Every state of a mail, from the present one until it settles. Raises as `get` does."""
        mail = await self.get(caller, mail_id)
        job = self._delivery.find(mail_id)
        if job is None:
            yield mail
            return
        states: asyncio.Queue[Mail] = asyncio.Queue()
        job.watchers = (*job.watchers, states)
        try:
            yield (mail := job.mail)
            while not mail.state.final:
                yield (mail := await states.get())
        finally:
            job.watchers = tuple(watcher for watcher in job.watchers if watcher is not states)

    async def cancel(self, caller: str, mail_id: str) -> Mail:
        """Take back a mail that has not been handed to the relay. Cancelling it twice is no error.

        Raises as `get` does, and FailedPrecondition when it is with the relay or has settled otherwise.
        """
        mail = await self.get(caller, mail_id)
        job = self._delivery.find(mail_id)
        if job is not None:
            self._delivery.cancel(job)
            return job.mail
        if mail.state is not MailState.CANCELLED:
            raise FailedPrecondition(f"the mail has settled: {mail.state.name}")
        return mail

    def _job_of(self, mail: Mail) -> Job:
        """The job of a mail that is remembered."""
        return self._delivery.find(mail.id) or Job.finished(mail)

    def _lifetime(self, order: Submission) -> float:
        if order.ttl is None:
            return self._most_seconds if order.wait_for.guarantees else self._wait_seconds
        if order.ttl <= 0:
            raise InvalidArgument("ttl", "must be more than 0 seconds")
        return min(order.ttl, self._most_seconds)

    def _permitted_sender(self, sender: Address) -> Address:
        domain = sender.key[sender.key.rindex("@") :]
        if sender.key == self._sender.key or sender.key in self._allowed or domain in self._allowed:
            return sender
        raise PermissionDenied(f"mails may not be sent from {sender.spec}: EMAIL_FROM_ALLOWED does not hold it")


def _check_request_id(request_id: str) -> None:
    if len(request_id) > MAX_REQUEST_ID or not request_id.isprintable():
        raise InvalidArgument("request_id", f"must be printable and at most {MAX_REQUEST_ID} characters")


def _ids() -> Iterator[str]:
    """Ids of 128 random bits. The system is asked for many at a time: each asking costs as much as forty of them."""
    while True:
        digits = secrets.token_hex(16 * 64)
        for start in range(0, len(digits), 32):
            yield digits[start : start + 32]
