"""Every error that the service raises on purpose. `api.status` decides what a caller sees of them.

OtpmailError
├── CallerError                              meant for the caller
│   ├── InvalidArgument (ValueError)         a field of the request is wrong
│   ├── NotFound (LookupError)               no such mail, or not this caller's
│   ├── Unauthenticated                      the caller does not say who it is
│   ├── PermissionDenied (PermissionError)   this caller may not do that
│   ├── FailedPrecondition                   the wrong moment for this request
│   ├── LimitExceeded                        a limit is reached; names the time to wait
│   │   ├── QueueFull                        no place among the QUEUE_SIZE unsettled mails
│   │   ├── ShareSpent                       the caller has its share of the queue or of the memory
│   │   └── MemoryFull                       no octets are left of MEMORY_MAX_MB
│   ├── RequestTooLong                       the request has more octets than any may have
│   ├── Unimplemented                        the service does not know this way to call it
│   ├── DeadlineExceeded (TimeoutError)      the caller's deadline comes before its mail has settled
│   └── Unavailable                          the relay or the store is down; names the time to wait
│       ├── RelayDown                        no relay is up, so no mail is accepted that waits for one
│       └── Stopping                         the service accepts nothing more
├── SettingsError (ValueError)               a setting is wrong; names it
├── StoreError                               the store can't be opened or read
│   └── StoreEnded (Unavailable)             the part that writes it has ended, and the service with it
└── RelayError                               the relay or the network failed
    ├── ConnectFailed (ConnectionError)      no usable connection was opened
    │   ├── Unreachable                      no address took a connection and greeted
    │   ├── SignInRefused                    the relay rejects our credentials
    │   └── ProbeFailed                      the probe for rejected chunks ended it
    └── ConnectionLost (ConnectionError)     it ended with a mail in flight
"""

from typing import Self


class OtpmailError(Exception):
    """The base of all errors that are raised on purpose."""


class CallerError(OtpmailError):
    """An error that is meant for the caller. Programs may rely on `reason` (google.rpc.ErrorInfo.reason)."""

    reason = "OTPMAIL"


class InvalidArgument(CallerError, ValueError):
    """A field of a request is wrong: `field` names it, `description` says what is wrong.

    The text is made of both, unless a contract fixes it as `text`.
    """

    reason = "INVALID_ARGUMENT"

    def __init__(self, field: str, description: str, *, text: str = "") -> None:
        super().__init__(text or f"{field}: {description}")
        self.field = field
        self.description = description


class NotFound(CallerError, LookupError):
    """The thing does not exist or belongs to another caller: the error does not tell which."""

    reason = "NOT_FOUND"


class Unauthenticated(CallerError):
    """The call has no token or certificate that is known here."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(CallerError, PermissionError):
    """The caller has no permission for this request."""

    reason = "PERMISSION_DENIED"


class FailedPrecondition(CallerError):
    """The thing exists, but its state does not allow this request."""

    reason = "FAILED_PRECONDITION"


class LimitExceeded(CallerError):
    """A limit is reached. `subject` is whose limit it is; after `retry_after` seconds a retry makes sense.

    `setting` is the name of the setting that limits, or that of the key in CALLERS_FILE, or of a fixed limit
    (docs/api.md). `limit` is that of a limit in LIMITS_MODE.
    """

    reason = "LIMIT_EXCEEDED"

    def __init__(
        self, subject: str, description: str, *, retry_after: float, setting: str = "", limit: str = ""
    ) -> None:
        super().__init__(description)
        self.subject = subject
        self.retry_after = retry_after
        self.setting = setting
        self.limit = limit


class QueueFull(LimitExceeded):
    """The queue has no place for this mail, so nothing was accepted. It has `size` places, see `limits.places`."""

    reason = "QUEUE_FULL"

    def __init__(self, size: int) -> None:
        text = f"no place is free for this mail in the queue of {size}"
        super().__init__("queue", text, retry_after=1.0, setting="QUEUE_SIZE")


class ShareSpent(LimitExceeded):
    """The mails of this caller take all that it may of the queue or of the memory, so nothing was accepted.

    `key` is the one of CALLERS_FILE that says how much that is.
    """

    reason = "SHARE_SPENT"

    def __init__(self, description: str, key: str) -> None:
        super().__init__("share", description, retry_after=1.0, setting=key)


class MemoryFull(LimitExceeded):
    """Mails and code records take what they may of MEMORY_MAX_MB, so nothing was accepted."""

    reason = "MEMORY_FULL"

    def __init__(self, taken: str = "mails and codes take all") -> None:
        text = f"{taken} of the memory that MEMORY_MAX_MB allows"
        super().__init__("memory", text, retry_after=1.0, setting="MEMORY_MAX_MB")


class RequestTooLong(CallerError):
    """The request has more octets than any may have, so a retry makes no sense."""

    reason = "REQUEST_TOO_LONG"


class Unimplemented(CallerError):
    """The service does not know this way to call it."""

    reason = "UNIMPLEMENTED"


class DeadlineExceeded(CallerError, TimeoutError):
    """The caller's deadline comes before the mail `mail_id` has settled; the message has its state.

    Without `mail_id` the call waited for no mail.
    """

    reason = "DEADLINE_EXCEEDED"

    def __init__(self, description: str, *, mail_id: str = "") -> None:
        super().__init__(description)
        self.mail_id = mail_id


class Unavailable(CallerError):
    """The relay or the store is down, or the service is stopping. After `retry_after` seconds a retry makes sense."""

    reason = "UNAVAILABLE"

    def __init__(self, description: str, *, retry_after: float = 1.0) -> None:
        super().__init__(description)
        self.retry_after = retry_after


class RelayDown(Unavailable):
    """No relay is up, so the service accepts no mail whose caller waits for one."""

    reason = "RELAY_DOWN"


class Stopping(Unavailable):
    """The service is stopping, and accepts nothing more. Clients then try another server."""

    def __init__(self) -> None:
        super().__init__("the service is stopping")


class SettingsError(OtpmailError, ValueError):
    """Settings are wrong: `problems` holds a line for each mistake, which opens with the name of the setting."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class StoreError(OtpmailError):
    """The store can't be opened, or can't read what it holds. The message says what to do."""


class StoreEnded(StoreError, Unavailable):
    """The part that writes the store has ended by a mistake of the program, and the service ends with it."""

    def __init__(self) -> None:
        super().__init__("the service's store has ended; its log says why")


class RelayError(OtpmailError):
    """The relay or the network between failed."""


class ConnectFailed(RelayError, ConnectionError):
    """No usable connection was opened: refused, timed out, without required TLS, or greeted with an error.

    `code`, `enhanced_code` and `reply` are those of the relay's refusal, its words without secrets; 0 and empty where
    it made none.
    """

    def __init__(self, description: str, *, code: int = 0, enhanced_code: str = "", reply: str = "") -> None:
        super().__init__(description)
        self.code = code
        self.enhanced_code = enhanced_code
        self.reply = reply

    def reworded(self, description: str) -> Self:
        """Return the same failure with another description."""
        return type(self)(description, code=self.code, enhanced_code=self.enhanced_code, reply=self.reply)


class Unreachable(ConnectFailed):
    """No address of the relay took a connection, or none greeted: the host, the port or a firewall may be wrong."""


class SignInRefused(ConnectFailed):
    """The relay rejects our credentials, or offers no mechanism for them. Frequent retries may lock the account."""


class ProbeFailed(ConnectFailed):
    """The connection ended during the probe that asks how the relay reads a rejected chunk (`smtp.probe`)."""


class ConnectionLost(RelayError, ConnectionError):
    """The connection ended with a mail in flight.

    `uncertain`: the relay may have accepted the mail, since its reply is lost. `not_started`: the relay has not
    accepted it, and the connection ended because of another mail. `offered` are the recipients that the transaction
    was for, where they may be fewer than the mail has (RCPTMAX of RFC 9422).
    """

    def __init__(
        self, description: str, *, uncertain: bool = False, not_started: bool = False, offered: tuple[str, ...] = ()
    ) -> None:
        super().__init__(description)
        self.uncertain = uncertain
        self.not_started = not_started
        self.offered = offered
