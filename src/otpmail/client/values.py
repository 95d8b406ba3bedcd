"""The values that calls return: times are datetimes in UTC, states are words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class State(StrEnum):
    """The state of a mail. All but QUEUED and SENDING are final. One that only a newer service knows is UNSPECIFIED."""

    UNSPECIFIED = "UNSPECIFIED"
    QUEUED = "QUEUED"
    SENDING = "SENDING"
    RELAYED = "RELAYED"
    PARTIAL = "PARTIAL"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"
    UNCERTAIN = "UNCERTAIN"

    @property
    def is_final(self) -> bool:
        """Whether the mail has settled."""
        return self not in (State.QUEUED, State.SENDING)


class Result(StrEnum):
    """The outcome of a check of a code."""

    UNSPECIFIED = "UNSPECIFIED"
    VALID = "VALID"
    WRONG_CODE = "WRONG_CODE"
    NO_LIVE_CODE = "NO_LIVE_CODE"
    TOO_MANY_ATTEMPTS = "TOO_MANY_ATTEMPTS"


class WaitFor(StrEnum):
    """When a call is answered: once the mail has settled, or once the service has accepted it."""

    RELAY = "RELAY"
    QUEUE = "QUEUE"


class Priority(StrEnum):
    """The order in which waiting mails are sent."""

    NORMAL = "NORMAL"
    BULK = "BULK"
    URGENT = "URGENT"


class Outcome(StrEnum):
    """The fate of a mail after the relay had taken it."""

    DELIVERED = "DELIVERED"
    BOUNCED = "BOUNCED"
    COMPLAINED = "COMPLAINED"


@dataclass(frozen=True, slots=True)
class Suppression:
    """Why nothing is sent to an address. `scope` is ALL, or BULK for mails of that priority alone.

    A scope that only a newer service knows is UNSPECIFIED.
    """

    reason: str
    since: datetime | None
    until: datetime | None
    scope: str


@dataclass(frozen=True, slots=True)
class RecipientResult:
    """The relay's last reply about one recipient. `code` is 0 without one."""

    address: str
    code: int
    enhanced_code: str
    reply: str
    suppression: Suppression | None


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that the service has accepted."""

    id: str
    state: State
    recipients: tuple[RecipientResult, ...]
    attempts: int
    create_time: datetime | None
    settle_time: datetime | None
    next_attempt_time: datetime | None
    message_id: str
    request_id: str
    labels: Mapping[str, str] = field(repr=False)
    caller: str


@dataclass(frozen=True, slots=True)
class SentCode:
    """A code that was mailed. `otp_code` is empty, unless the service returns codes for development."""

    challenge_id: str
    reference: str
    expire_time: datetime | None
    next_send_time: datetime | None
    mail: Mail
    code_length: int
    code_is_numeric: bool
    otp_code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome of a check, true if the code was valid. `device_token` is to be kept with the person's browser."""

    result: Result
    attempts_left: int
    retry_time: datetime | None
    device_token: str = field(repr=False)

    def __bool__(self) -> bool:
        return self.result is Result.VALID


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of a limit an address has spent, and when less of it is spent."""

    name: str
    spent: int
    limit: int
    reset_time: datetime | None


@dataclass(frozen=True, slots=True)
class Address:
    """All that is kept of an address for the caller."""

    suppression: Suppression | None
    budgets: tuple[Budget, ...]


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file in a mail. With `content_id` it is shown where the HTML has it as `cid:`."""

    filename: str
    content: bytes = field(repr=False)
    content_type: str = ""
    content_id: str = ""
    alternative: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingMail:
    """A mail to send. `from_` is the author, `ttl` is in seconds. Without a `request_id` the client makes one."""

    to: str | Sequence[str]
    subject: str = field(default="", repr=False)
    text: str = field(default="", repr=False)
    html: str = field(default="", repr=False)
    cc: str | Sequence[str] = ()
    bcc: str | Sequence[str] = ()
    from_: str = ""
    sender: str = ""
    return_path: str = ""
    reply_to: str | Sequence[str] = ()
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    attachments: Sequence[Attachment] = ()
    message_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, repr=False)
    priority: Priority = Priority.NORMAL
    wait_for: WaitFor = WaitFor.RELAY
    ttl: float | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class MailResult:
    """The result of one mail of a stream: the mail, or the error that it would have raised alone."""

    request_id: str
    mail: Mail | None
    error: Exception | None
