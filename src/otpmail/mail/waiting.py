"""How long a caller waits for its mail: MAIL_WAIT_SECONDS, or until shortly before its deadline."""

from collections.abc import Callable

from otpmail.callers import Call
from otpmail.delivery.closing import STOPPED
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.waiters import Waiters
from otpmail.errors import DeadlineExceeded, Unavailable
from otpmail.model import Mail, MailState, RecipientResult

# The answer must reach the client before the client's own deadline. It needs some turns of a loop that is busy, and a
# client that gets to read it. In gRPC's C core a timeout is rounded up by a hundredth at most.
_SHORT = 0.5  # of the time that is left: a call of 50 ms can't give away more
_USUAL_SECONDS = 0.05
_USUAL = 0.1  # of the time that is left, beside _USUAL_SECONDS
_LONG_SECONDS = 0.2
_ROUNDED_UP = 0.01

_STATES = {
    MailState.QUEUED: "it is still queued",
    MailState.SENDING: "it is with the relay, and GetMail returns how it ends",
}


class Outcomes:
    """Waits for the ends of mails on behalf of callers, `most_seconds` at most; `now` is the clock of the deadlines."""

    def __init__(
        self, lifecycle: Lifecycle, waiters: Waiters, now: Callable[[], float], *, most_seconds: float
    ) -> None:
        self._lifecycle = lifecycle
        self._waiters = waiters
        self._now = now
        self._most_seconds = most_seconds

    def __repr__(self) -> str:
        return f"<Outcomes {self._most_seconds:g} s, {self._waiters!r}>"

    async def wait(self, call: Call, job: Job) -> Mail:
        """Wait until the job settles. A mail that has not settled after `most_seconds` is returned, and goes on.

        Raises Unavailable when the service stops first. Raises DeadlineExceeded shortly before the call's deadline
        where that comes first, which abandons the mail like a cancelled call.
        """
        if job.state.final:
            return job.mail
        if job.id not in self._lifecycle.jobs:  # a stop has released it since the caller was given it
            raise Unavailable(STOPPED)
        seconds, until_deadline = self._most_seconds, False
        if call.deadline is not None and (left := wait_until_deadline(call.deadline - self._now())) < seconds:
            seconds, until_deadline = left, True
        try:
            mail = await self._waiters.outcome(job, seconds)
        except BaseException:
            self._lifecycle.drop_if_abandoned(job)
            raise
        if mail is None and job.id in self._lifecycle.jobs:  # it may have ended in this turn of the loop
            if until_deadline:
                self._lifecycle.drop_if_abandoned(job)
                raise deadline_exceeded(job.mail)
            self._waiters.keep(job)
        return mail or job.mail


def wait_until_deadline(left: float) -> float:
    """Return how many seconds a call waits whose deadline is `left` seconds away."""
    earlier = min(left * _SHORT, _USUAL_SECONDS + left * _USUAL, _LONG_SECONDS + left * _ROUNDED_UP)
    return max(0.0, left - earlier)


def deadline_exceeded(mail: Mail) -> DeadlineExceeded:
    """Return the error for a caller whose deadline comes before its mail has settled, or cancels it now."""
    state = _STATES.get(mail.state, f"it is {mail.state.name.lower()}")
    return DeadlineExceeded(
        f"the deadline came before mail {mail.id} was relayed: {state}; {_last_reply(mail.recipients)}", mail_id=mail.id
    )


def _last_reply(recipients: tuple[RecipientResult, ...]) -> str:
    """Word the relay's last reply, or what kept it: that of a recipient it has not accepted, if there is one."""
    told = [result for result in recipients if result.said]
    if not told:
        return "the relay has not replied"
    last = min(told, key=lambda result: result.accepted)
    return f"the relay's last reply was: {last.said}" if last.code else f"the relay has not replied: {last.said}"
