"""Every error that the client raises. Each has words for a log, and `retry_after` where trying again makes sense.

Error                                  retry_after, http_status
├── InvalidRequest (ValueError)        a field is wrong: field, description
├── NotFound (LookupError)             no such mail, or not this caller's
├── NotAllowed (PermissionError)       the caller may not do that
│   └── Unauthenticated                the token is missing or unknown
├── WrongState                         the wrong moment for this request, such as a mail that is with the relay
├── TooSoon                            a limit is reached: retry_after, limit
├── Unavailable (ConnectionError)      nothing was done, or repeating it is safe: retry_after
│   ├── Unreachable                    no service answered
│   ├── RelayDown                      the service can't reach its relay
│   └── Busy                           the queue or the memory of the service is full
├── TimedOut (TimeoutError)            no answer in time: mail_id, if the service accepted a mail
├── Closed                             the client was closed during the call
├── ServiceError                       a fault of the service, or an answer that is not its own: error_id
├── NotSent                            the mail has settled, and did not reach everyone: mail
│   ├── Refused                        the relay refused it for good: reply, code, enhanced_code
│   ├── Suppressed                     nothing is sent to this address: until, reason
│   ├── PartlySent                     the relay took it for some recipients
│   ├── Expired                        its time passed before it was sent
│   ├── Cancelled                      it was cancelled before it was sent
│   └── Uncertain                      the relay's reply was lost: the mail may arrive
└── NotValid                           the code is not valid
    ├── WrongCode                      attempts_left
    ├── NoLiveCode                     never sent, expired, used or revoked
    └── TooManyAttempts                retry_after
"""

from datetime import UTC, datetime
from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otpmail.client.values import Mail, RecipientResult

_AGAIN = "try again in"


class Error(Exception):
    """The base of all errors of the client.

    `retry_after` is in seconds, and None where nobody knows when to try again. The text has it too, in whole seconds.
    `http_status` is what a web service may answer, whose own client made the request.
    """

    http_status = 502
    retry_after: float | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how to copy and unpickle the error: not by its constructor, whose text lacks what was added to it."""
        return _copied, (type(self), self.args), self.__dict__


def _copied(kind: type[Error], args: tuple[Any, ...]) -> Error:
    """Return an error that has these `args`, and no fields yet."""
    error = kind.__new__(kind, *args)
    error.args = args  # which those of OSError do not have from __new__
    return error


def _with_wait(text: str, retry_after: float | None) -> str:
    """Return the words of an error with the time to try again, unless they have it."""
    if retry_after is None or _AGAIN in text:
        return text
    return f"{text}; {_AGAIN} {max(1, ceil(retry_after))} s"


class InvalidRequest(Error, ValueError):
    """A field of the request is wrong: `field` names it, `description` says what is wrong."""

    http_status = 422

    def __init__(self, text: str, *, field: str = "", description: str = "") -> None:
        super().__init__(text)
        self.field = field
        self.description = description or text


class NotFound(Error, LookupError):
    """No such mail, or not this caller's."""

    http_status = 404


class NotAllowed(Error, PermissionError):
    """The caller may not do that."""

    http_status = 500


class Unauthenticated(NotAllowed):
    """The token is missing or unknown: see OTPMAIL_TOKEN."""


class WrongState(Error):
    """The thing exists, and its state does not allow this request."""

    http_status = 409


class TooSoon(Error):
    """A limit is reached. `limit` is the setting that limits, empty if it has none, and `subject` whose limit it is."""

    http_status = 429

    def __init__(self, text: str, *, retry_after: float | None = None, limit: str = "", subject: str = "") -> None:
        super().__init__(_with_wait(text, retry_after))
        self.retry_after = retry_after
        self.limit = limit
        self.subject = subject


class Unavailable(Error, ConnectionError):
    """The service or something behind it is down. The client has tried several times where repeating is safe."""

    http_status = 503

    def __init__(self, text: str, *, retry_after: float | None = None) -> None:
        super().__init__(_with_wait(text, retry_after))
        self.retry_after = retry_after


class Unreachable(Unavailable):
    """No service answered at the address, or the connection ended during the call."""


class RelayDown(Unavailable):
    """The service can't reach its relay, and accepts no mail that waits for it."""


class Busy(Unavailable):
    """The queue, the memory or the caller's share of them is full. Nothing was accepted."""


class TimedOut(Error, TimeoutError):
    """No answer came in time. `mail_id` names the mail that the call waited for, empty if the service said none."""

    http_status = 504

    def __init__(self, text: str, *, mail_id: str = "") -> None:
        super().__init__(text)
        self.mail_id = mail_id


class Closed(Error):
    """The client was closed during the call, which may have been made. With its `request_id` it is safe to repeat."""

    http_status = 503


class ServiceError(Error):
    """A fault of the service. Its log has the details under `error_id`."""

    def __init__(self, text: str, *, error_id: str = "") -> None:
        super().__init__(text)
        self.error_id = error_id


class NotSent(Error):
    """A mail has settled, and did not reach all of its recipients. `mail` has the relay's replies."""

    def __init__(self, text: str, mail: "Mail") -> None:
        super().__init__(text)
        self.mail = mail


class Refused(NotSent):
    """The relay refused the mail for good. `reply`, `code` and `enhanced_code` are of the first recipient."""

    http_status = 422

    def __init__(self, text: str, mail: "Mail", recipient: "RecipientResult") -> None:
        super().__init__(text, mail)
        self.recipient = recipient
        self.reply = recipient.reply
        self.code = recipient.code
        self.enhanced_code = recipient.enhanced_code


class Suppressed(NotSent):
    """Nothing was sent, since a relay has refused the address as such, or its owner has complained."""

    http_status = 422

    def __init__(self, text: str, mail: "Mail", *, reason: str, until: datetime | None) -> None:
        super().__init__(text, mail)
        self.reason = reason
        self.until = until


class PartlySent(NotSent):
    """The relay took the mail for some recipients, and refused others: see `mail.recipients`."""


class Expired(NotSent):
    """The mail's time passed before it was sent."""


class Cancelled(NotSent):
    """The mail was cancelled before it was sent."""


class Uncertain(NotSent):
    """The relay's reply was lost, so the mail may arrive. No further copy is sent."""


class NotValid(Error):
    """The code that was checked is not valid."""

    http_status = 422


class WrongCode(NotValid):
    """The code is wrong; `attempts_left` more may be tried."""

    def __init__(self, text: str, *, attempts_left: int) -> None:
        super().__init__(text)
        self.attempts_left = attempts_left


class NoLiveCode(NotValid):
    """No code of this address, purpose and session is live: never sent, expired, used or revoked."""


class TooManyAttempts(NotValid):
    """The code or the address has no attempts left. A new code may be requested at `retry_time`.

    `retry_after` is the time until then by the clock of this machine, as of the error.
    """

    http_status = 429

    def __init__(self, text: str, *, retry_time: datetime | None) -> None:
        left = None if retry_time is None else max(0.0, (retry_time - datetime.now(UTC)).total_seconds())
        super().__init__(_with_wait(text, left))
        self.retry_time = retry_time
        self.retry_after = left
