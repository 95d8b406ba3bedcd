"""The values that all parts share: mails, their recipients and states, challenges. Nothing here acts."""

from collections.abc import Sequence
from dataclasses import field, replace
from enum import Enum, IntEnum
from typing import NamedTuple

from otpmail.suppression import Suppression
from otpmail.values import frozen

HOUR, DAY = 3600, 86_400
"""In seconds: for how long a failed attempt, or a mail, counts against the limits of an address."""


Labels = tuple[tuple[str, str], ...]
"""A caller's own notes on a mail: pairs of a name and a value, as a mapping that can be hashed."""


class Priority(IntEnum):
    """The order in which waiting mails are sent: lower first."""

    URGENT = 0
    NORMAL = 1
    BULK = 2


class WaitFor(Enum):
    """When a caller is answered: once the relay has replied, or once the mail is accepted and guaranteed."""

    RELAY = "relay"
    QUEUE = "queue"

    __hash__ = object.__hash__  # Enum's own is written in Python, and asked several times for each mail

    def __init__(self, value: str) -> None:
        """Keep with each member whether it guarantees the mail: naming a member takes longer than asking it."""
        self.guarantees = value == "queue"


class MailState(Enum):
    """The states of a mail; all but the first two are final."""

    QUEUED = "queued"
    SENDING = "sending"
    RELAYED = "relayed"
    PARTIAL = "partial"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    UNCERTAIN = "uncertain"

    __hash__ = object.__hash__  # as above

    def __init__(self, value: str) -> None:
        """Keep with each member whether it is final: that is asked many times for each mail."""
        self.final = value not in {"queued", "sending"}


@frozen()
class RecipientResult:
    """The relay's last reply about one recipient.

    `code` is the SMTP reply code (RFC 5321, 4.2), 0 when no reply came; `enhanced_code` is RFC 3463's, as "5.1.1".
    `suppression` is why nothing was sent to it. `is_about_address`: no other recipient had a part in the reply.
    """

    address: str
    code: int = 0
    enhanced_code: str = ""
    reply: str = ""
    suppression: Suppression | None = None
    is_about_address: bool = field(default=False, compare=False, repr=False)

    @property
    def accepted(self) -> bool:
        """The relay took the mail for this recipient."""
        return 200 <= self.code < 300

    @property
    def refused(self) -> bool:
        """The relay refused this recipient for good."""
        return self.code >= 500

    @property
    def said(self) -> str:
        """The relay's reply in one line; empty before the relay has replied."""
        return " ".join(filter(None, (str(self.code or ""), self.enhanced_code, self.reply)))


@frozen()
class AsciiHead:
    """How a mail begins for a relay without SMTPUTF8: with these octets in place of its first `replaced` octets."""

    octets: bytes = field(repr=False)
    replaced: int


@frozen()
class Envelope:
    """A mail as the relay gets it: sender, recipients, and the bytes (canonical CRLF lines).

    Addresses are in wire form: the domain in A-labels. `smtputf8` is set where a local part or a header is not ASCII.
    `ascii_head` is there where the mail may go without SMTPUTF8 to some of its recipients. `code` is the one that the
    content holds, if it is the mail of a code: no reply about it may be repeated with that. `id` is the mail's: the
    relay's reports of failures name it (RFC 3461). `relay` is the only one that it may go to, empty for any.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes = field(repr=False)  # it may hold a code
    smtputf8: bool = False
    code: str = field(default="", repr=False)
    ascii_head: AsciiHead | None = None
    id: str = ""
    relay: str = ""

    def only(self, recipients: Sequence[str]) -> "Envelope":
        """Return this mail for fewer recipients: those that a further attempt is for."""
        if recipients == self.recipients:
            return self
        return Envelope(
            self.sender, tuple(recipients), self.content, self.smtputf8, self.code, self.ascii_head, self.id, self.relay
        )

    def without_smtputf8(self) -> "Envelope":
        """Return this mail as it goes to a relay without SMTPUTF8; itself where it can't."""
        head = self.ascii_head
        if head is None:
            return self
        content = head.octets + self.content[head.replaced :]
        return Envelope(self.sender, self.recipients, content, code=self.code, id=self.id, relay=self.relay)

    def without_content(self) -> "Envelope":
        """Return the terms of this mail, without its content."""
        return Envelope(self.sender, self.recipients, b"", self.smtputf8, id=self.id, relay=self.relay)

    def with_code(self, code: str) -> "Envelope":
        """Return this mail as one whose content holds the code."""
        return replace(self, code=code)


LONG = 12
"""How many letters a long code has."""

ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
"""The letters of codes, five bits each; without 0, 1, I and O, which look like others."""

LETTERS = 32
"""Added to the number of letters, it makes the `length` of a shorter code of letters. Other codes are numbers."""


FIXED_KEY = ":fixed"
"""In place of a key that derives a code, in the challenge of a test address: no key has this id."""


@frozen()
class Challenge:
    """One issued code. The code itself is not kept: it is derived from the id with the key named by `key_id`.

    `expires` is in seconds since the epoch. `length` is the number of digits, LONG, or LETTERS and a number of letters.
    It is 0 where the mail of an earlier version does not say: that one is as long as codes are set to be. `most` is how
    many attempts it has, 0 for as many as are set.
    """

    id: bytes
    key_id: str
    expires: float
    attempts: int = 0
    length: int = 0
    most: int = 0

    @property
    def is_numeric(self) -> bool:
        """Whether all of them are digits."""
        return self.length < LONG

    @property
    def is_long(self) -> bool:
        """Whether nobody can guess it, so that attempts at it need no limit."""
        return self.length == LONG


@frozen()
class IssuedCode:
    """The challenge whose code a mail carries, and when its caller may ask for the next mail.

    `next_send_time` is in seconds since the epoch. `record` is the key of the code's record, where a store keeps the
    mail too. The process that ends the mail may be another one than issued it, so until then `counted` and `mailbox`
    are there too, as in `Sending`. So is `spent_until`, for good.
    """

    challenge: Challenge
    next_send_time: float
    record: bytes = field(default=b"", repr=False)
    counted: tuple[bytes, ...] = field(default=(), repr=False)
    mailbox: bytes = field(default=b"", repr=False)
    spent_until: float = 0.0

    @property
    def expire_time(self) -> float:
        """When the code expires, in seconds since the epoch."""
        return self.challenge.expires


PARTS = 12
"""In how many stretches an hour or a day is counted."""

STRETCH = HOUR // PARTS
"""Seconds of a count, where a limit is one of an hour."""

STRETCHES = PARTS + 1
"""How many stretches an hour or a day touches."""

Counts = tuple[tuple[int, int], ...]
"""How often something has happened in each of some stretches of time: pairs of a stretch's number since the
epoch, and a count. The oldest comes first."""


class Reached(NamedTuple):
    """A limit that a mail has come near, or would have been refused by: 50, 80 or 100 percent of it."""

    limit: str
    percent: int


@frozen()
class Sending:
    """A mail with a code that may go now: with which challenge's code, and when the next may go.

    `counted` are the keys of the limits over many addresses that it counts for, `reached` those that are worth a line.
    `mailbox` is the key of the record where a mail to an address with a tag counts too. `spent_until` is when one more
    is within the limits that this mail has used up, 0.0 where it has used up none.
    """

    challenge: Challenge
    next_send: float
    counted: tuple[bytes, ...] = ()
    reached: tuple[Reached, ...] = ()
    mailbox: bytes = field(default=b"", repr=False)
    spent_until: float = 0.0

    def is_that_of(self, issued: IssuedCode) -> bool:
        """Whether a mail that was written for an issued code is the one that may go now, by code and times.

        A challenge of the same id may have become a long one, since the address is under attack.
        """
        mine, its = self.challenge, issued.challenge
        return (mine.id, mine.length, mine.expires, self.next_send, self.spent_until) == (
            *(its.id, its.length, its.expires, issued.next_send_time, issued.spent_until),
        )


class CheckResult(Enum):
    """The answer to a check of a code."""

    VALID = "valid"
    WRONG_CODE = "wrong_code"
    NO_LIVE_CODE = "no_live_code"
    TOO_MANY_ATTEMPTS = "too_many_attempts"


@frozen()
class Check:
    """A check's result. `retry_time` (seconds since the epoch) goes with TOO_MANY_ATTEMPTS.

    `device` and `time` go with VALID: whose lane the person's device has from now on, and when the code was right.
    `reached` are limits over many addresses that are worth a line. `limit` is the name of the one that is used up, with
    TOO_MANY_ATTEMPTS in the original's contract, which tells it as a refusal.
    """

    result: CheckResult
    attempts_left: int = 0
    retry_time: float | None = None
    device: bytes = field(default=b"", repr=False)
    time: float = 0.0
    reached: tuple["Reached", ...] = ()
    limit: str = ""


@frozen()
class Mail:
    """One accepted mail as its caller sees it: identity, state and the relay's replies so far.

    Times are seconds since the epoch; `next_attempt_time` is set while it is deferred. The content is not here: it is
    in the envelope, dropped once the mail settles.
    """

    id: str
    caller: str
    message_id: str
    create_time: float
    request_id: str = ""
    state: MailState = MailState.QUEUED
    recipients: tuple[RecipientResult, ...] = ()
    attempts: int = 0
    settle_time: float | None = None
    issued: IssuedCode | None = None
    labels: Labels = field(default=(), repr=False)
    next_attempt_time: float | None = None
