"""Sends a mail again that did not reach all of its recipients, as the same mail (`RetryMail`)."""

import asyncio
from dataclasses import replace

from otpmail.callers import Call, Caller
from otpmail.delivery.backlog import Backlog
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.verdict import RETRIABLE
from otpmail.errors import FailedPrecondition, InvalidArgument
from otpmail.mail.admission import Admission
from otpmail.mail.lookup import check_mail_id, not_found
from otpmail.mail.submission import priority_denied
from otpmail.model import Mail, MailState, WaitFor
from otpmail.store.base import Entry, MailStore, Progress

_CODE = "it is the mail of a code, whose content is not kept: SendCode mails the code again, or a new one"
_NO_CONTENT = "its content is not kept any more: send it as a new mail"
_OTHER_MAIL = "its request_id has a later mail: look at that one"


class Retrying:
    """Opens settled mails again, and hands them to delivery. Each is tried for `most_seconds` from then on."""

    def __init__(
        self, store: MailStore, lifecycle: Lifecycle, backlog: Backlog, admission: Admission, *, most_seconds: float
    ) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._backlog = backlog
        self._admission = admission
        self._most_seconds = most_seconds

    def __repr__(self) -> str:
        return f"<Retrying {self._lifecycle!r}>"

    async def retry(self, call: Call, mail_id: str) -> Mail:
        """Send a mail again to the recipients for whom no relay has accepted it, and return its state then.

        It keeps its id, its octets and its priority. It is guaranteed from now on, whatever it was.

        Raises NotFound, and FailedPrecondition for a mail that has not settled, or can't be retried. Raises
        PermissionDenied, QueueFull, MemoryFull and Unavailable as sending a mail does; the mail is unchanged then.
        """
        if not mail_id:
            raise InvalidArgument("id", "is empty")
        check_mail_id(mail_id)
        settled = await self._settled(call.caller, mail_id)
        if settled.priority not in call.caller.may.priorities:
            raise priority_denied(call.caller, settled.priority)
        with self._admission.reserve(call, WaitFor.QUEUE, settled.priority):
            again = _again(settled, self._store.now() + self._most_seconds)
            job = Job.from_entry(again)
            self._lifecycle.suppressions.leave_out(job)
            if job.is_known:
                again = job.entry(settled.fingerprint)
            reopening = asyncio.ensure_future(self._store.reopen(again, settled.mail.settle_time or 0.0))
            try:
                await asyncio.shield(reopening)
            except asyncio.CancelledError:  # the store may have opened the mail, which is to be sent then
                await asyncio.wait((reopening,))
                if not reopening.cancelled() and reopening.exception() is None and reopening.result():
                    self._backlog.submit(job)
                raise
            if not reopening.result():
                raise await self._refusal(call.caller, mail_id)
            self._backlog.submit(job)
        return job.mail

    async def _settled(self, caller: Caller, mail_id: str) -> Entry:
        """Return a mail that may be retried, as it settled. Raises NotFound and FailedPrecondition."""
        job = self._lifecycle.find(mail_id)
        if job is None or job.caller != caller.name:
            entry = await self._store.retryable(caller.name, mail_id)
            if entry is not None:
                return entry
        raise await self._refusal(caller, mail_id)

    async def _refusal(self, caller: Caller, mail_id: str) -> Exception:
        """Return why a mail can't be retried."""
        job = self._lifecycle.find(mail_id)
        mail = job.mail if job is not None and job.caller == caller.name else None
        mail = mail or await self._store.get(caller.name, mail_id)
        if mail is None:
            return not_found()
        if not mail.state.final:
            return FailedPrecondition(f"the mail has not settled: {mail.state.name}")
        if mail.state not in RETRIABLE:
            names = ", ".join(sorted(state.name for state in RETRIABLE))
            return FailedPrecondition(f"the mail has settled: {mail.state.name}; a retry is for {names}")
        if mail.issued is not None:
            return FailedPrecondition(f"the mail can't be retried: {_CODE}")
        is_kept = await self._store.retryable(caller.name, mail_id) is not None
        return FailedPrecondition(f"the mail can't be retried: {_OTHER_MAIL if is_kept else _NO_CONTENT}")


def _again(settled: Entry, deadline: float) -> Entry:
    """Return the entry of a settled mail as one that is open, for the recipients without acceptance.

    The relay's replies stay until others come. Copies and losses are counted from the beginning.
    """
    before = settled.progress
    accepted = {result.address for result in before.results if result.accepted}
    progress = Progress(
        pending=tuple([address for address in settled.envelope.recipients if address not in accepted]),
        results=tuple([result for result in before.results if result.code]),
        uncertain=before.uncertain,
        attempts=before.attempts,
    )
    mail = replace(settled.mail, state=MailState.QUEUED, settle_time=None)
    return replace(settled, mail=mail, deadline=deadline, progress=progress)
