"""Events of mails, and of the checks of codes."""

from otpmail.callers import NO_TRACE, Trace
from otpmail.model import Mail
from otpmail.values import frozen


@frozen()
class MailAccepted:
    """A mail has an id and a place in the queue."""

    mail: Mail
    trace: Trace = NO_TRACE


@frozen()
class MailDeferred:
    """An attempt did not settle the mail; the next one is in `retry_after` seconds."""

    mail: Mail
    retry_after: float
    reply: str
    trace: Trace = NO_TRACE


@frozen()
class MailSettled:
    """A mail reached its final state. `relay` is the one that had it last, empty if none had."""

    mail: Mail
    trace: Trace = NO_TRACE
    relay: str = ""


@frozen()
class CodeChecked:
    """A code was checked; `result` is the name of the answer. The event holds neither code nor address."""

    result: str


MailEvent = MailAccepted | MailDeferred | MailSettled | CodeChecked
