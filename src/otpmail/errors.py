"""Every error the service raises on purpose. What a caller sees of them is decided in one place, `rpc.status`.

OtpmailError
├── CallerError                              what a caller is told
│   ├── InvalidArgument (ValueError)         a request's field is not what it may be
│   ├── NotFound (LookupError)               no such mail, or not this caller's
│   ├── PermissionDenied (PermissionError)   this caller may not do that
│   ├── FailedPrecondition                   too late, or too early, for what was asked
│   ├── LimitExceeded                        a budget is spent; says when to come back
│   │   └── QueueFull                        as many mails as QUEUE_SIZE are waiting
│   └── Unavailable                          nothing to send through; says when to try again
├── SettingsError (ValueError)               a setting is not what it may be; names it
├── StoreError                               the store can't be opened, or read what it holds
└── RelayError                               the relay, or the way to it, did not do what was asked
    ├── ConnectFailed (ConnectionError)      no usable connection came about
    │   ├── SignInRefused                    the relay does not take our credentials
    │   └── ProbeFailed                      it ended over the question how the relay reads a refused chunk
    └── ConnectionLost (ConnectionError)     it ended under a mail; says whether the relay may have taken it
"""


class OtpmailError(Exception):
    """The root of all errors that are raised on purpose."""


class CallerError(OtpmailError):
    """What a caller is told. `reason` is the stable word a program may look at (google.rpc.ErrorInfo.reason)."""

    reason = "OTPMAIL"


class InvalidArgument(CallerError, ValueError):
    """A field of a request is not what it may be."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


class NotFound(CallerError, LookupError):
    """No such thing, or it is another caller's: one answer for both."""

    reason = "NOT_FOUND"


class PermissionDenied(CallerError, PermissionError):
    """The caller may not do what it asked for."""

    reason = "PERMISSION_DENIED"


class FailedPrecondition(CallerError):
    """The thing is there, but in a state in which this can't be done."""

    reason = "FAILED_PRECONDITION"


class LimitExceeded(CallerError):
    """A budget is spent. `retry_after` is in seconds; `subject` says whose budget."""

    reason = "LIMIT_EXCEEDED"

    def __init__(self, subject: str, description: str, *, retry_after: float) -> None:
        super().__init__(description)
        self.subject = subject
        self.retry_after = retry_after


class QueueFull(LimitExceeded):
    """As many mails as QUEUE_SIZE are waiting; nothing was accepted."""

    reason = "QUEUE_FULL"

    def __init__(self, size: int) -> None:
        super().__init__("queue", f"{size} mails are waiting, which is all the queue holds", retry_after=1.0)


class Unavailable(CallerError):
    """There is nothing to send through at the moment. `retry_after` is in seconds."""

    reason = "UNAVAILABLE"

    def __init__(self, description: str, *, retry_after: float = 1.0) -> None:
        super().__init__(description)
        self.retry_after = retry_after


class SettingsError(OtpmailError, ValueError):
    """Settings are not what they may be: `problems` holds one line each, which opens with the setting's name."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class StoreError(OtpmailError):
    """The store can't be opened, or can't read what it holds. The message says what to do."""


class RelayError(OtpmailError):
    """The relay, or the way to it, did not do what was asked."""


class ConnectFailed(RelayError, ConnectionError):
    """No usable connection came about: refused, silent, TLS not as required, a greeting that was no welcome."""


class SignInRefused(ConnectFailed):
    """The relay does not take our credentials, or offers no way to give them. Trying often makes it worse."""


class ProbeFailed(ConnectFailed):
    """The connection ended over the question how the relay reads a refused chunk: it is not to be asked again."""


class ConnectionLost(RelayError, ConnectionError):
    """The connection ended under a mail. `uncertain`: the relay may have taken the mail, its answer is lost.

    `not_started`: it certainly has not, and it ended over another mail.
    """

    def __init__(self, description: str, *, uncertain: bool = False, not_started: bool = False) -> None:
        super().__init__(description)
        self.uncertain = uncertain
        self.not_started = not_started
