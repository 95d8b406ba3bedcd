"""Issues a guaranteed code on a durable store: its record and its mail are there together, or neither is."""

from collections.abc import Callable, Sequence

from otpmail.callers import Call
from otpmail.delivery.job import Job
from otpmail.mail.keeping import Answers
from otpmail.mail.service import MailService
from otpmail.mail.submission import Submission
from otpmail.model import IssuedCode, Sending
from otpmail.store.base import Entry, Issue
from otpmail.store.challenges import Send


class Issuing:
    """One code on its way into the store.

    The mail has to be written before the store decides which challenge it is for. It is written for the fresh one
    first. Where the store decides for the live one, or for other times, nothing has changed, and the mail is written
    for those.
    """

    def __init__(self, issue: Issue, send: Send, *, resend_seconds: float) -> None:
        self._issue = issue
        self._send = send
        self._next_send = send.now + resend_seconds
        self._challenge = send.fresh
        self._spent_until = 0.0
        self.sending: Sending | None = None
        """The decision that the store keeps; None before that, and where the request id came before."""

    def __repr__(self) -> str:
        return f"<Issuing {self._challenge.id.hex()}>"

    async def run(
        self, mails: MailService, call: Call, mail_id: str, submission_of: Callable[[IssuedCode], Submission]
    ) -> Job:
        """Return the job of the mail, or that of an earlier call with its request id.

        Raises as `MailService.accept_reserved` and `ChallengeStore.send` do.
        """
        send = self._send
        counted = send.counted
        while True:
            until = self._spent_until
            issued = IssuedCode(self._challenge, self._next_send, send.key, counted, send.mailbox, until)
            submission = submission_of(issued)
            job = await mails.accept_reserved(call, submission, mail_id, keep=False)
            try:
                return await mails.keep_with(job, submission.fingerprint, self._accept)
            except _AnotherChallengeError as other:
                sending = other.sending
                self._challenge, self._next_send = sending.challenge, sending.next_send
                self._spent_until = sending.spent_until

    async def _accept(self, entries: Sequence[Entry]) -> Answers:
        [entry] = entries
        issued = await self._issue(self._send, entry)
        if issued.answer is not None:
            self.sending = issued.sending
            return [issued.answer]
        assert issued.sending is not None
        raise _AnotherChallengeError(issued.sending)


class _AnotherChallengeError(Exception):
    """The mail is to hold another challenge, or to name other times, than it does."""

    def __init__(self, sending: Sending) -> None:
        super().__init__()
        self.sending = sending
