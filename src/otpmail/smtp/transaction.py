"""One mail on its way to the relay: the commands it writes, the replies it reads, and the result of them. No I/O.

Here is what all modes share; `bdat`, `data` and `plain` add the commands of theirs. When a transaction may start, and
which reply is for which, the session decides.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum, auto
from itertools import repeat
from typing import ClassVar

from otpmail.errors import ConnectionLost
from otpmail.model import Envelope, RecipientResult
from otpmail.smtp.capabilities import Capabilities
from otpmail.smtp.output import Output
from otpmail.smtp.redaction import Redactor
from otpmail.smtp.replies import CLOSING, Reply, result

Results = tuple[RecipientResult, ...]

Outcome = Results | ConnectionLost
"""The result of a mail: one for each recipient, or that the connection was lost before the relay had decided."""

Callback = Callable[[Outcome], None]
"""Called once with the outcome of a mail. It must not raise."""

GROUP = 100
"""Recipients of one transaction at most. Every relay takes so many (RFC 5321, 4.5.3.1.8), and some take no more."""

_MAIL_OK = frozenset({250})
_RCPT_OK = frozenset({250, 251, 252})


class Awaits(Enum):
    """Which reply a transaction awaits next."""

    RESET_BEFORE = auto()  # to the RSET before a mail, in PLAIN only
    MAIL = auto()
    RECIPIENT = auto()
    GO_AHEAD = auto()  # the 354 to DATA
    FINAL = auto()
    RESET = auto()  # to the RSET behind a mail, not in PLAIN
    NOTHING = auto()  # the transaction is over


_MAIL, _NOTHING = Awaits.MAIL, Awaits.NOTHING  # fast path: a global is read in less time than a member of an Enum


class SessionEnded(Exception):
    """A reply after which the session cannot go on; the cause names no secret, the reply may hold some.

    `doubtful`: commands and replies may have been out of step before it, so what was read together with it is not
    believed.
    """

    def __init__(self, cause: str, reply: Reply | None = None, *, doubtful: bool) -> None:
        super().__init__(cause)
        self.reply = reply
        self.doubtful = doubtful


class Transaction(ABC):
    """One mail: the relay's replies so far, and in the end its `outcome`.

    `begun` is whether its first command was put into the output, `written` whether the last octet of its content has
    left it.
    """

    __slots__ = (
        *("accepted", "awaits", "begun", "callback", "capabilities", "envelope", "final", "outcome", "refusal"),
        *("redactor", "replies", "written"),
    )
    _AFTER_RECIPIENTS: ClassVar[Awaits]
    _AFTER_FINAL: ClassVar[Awaits] = Awaits.RESET

    def __init__(self, envelope: Envelope, capabilities: Capabilities, redactor: Redactor, callback: Callback) -> None:
        self.envelope = envelope
        self.capabilities = capabilities
        self.redactor = redactor
        self.callback = callback
        self.begun = False
        self.written = False
        self.awaits = _MAIL
        self.refusal: Reply | None = None  # of MAIL
        self.replies: list[Reply] = []  # to RCPT, in the order of the recipients
        self.accepted = 0
        self.final: Reply | None = None  # to the content, or to DATA if that was refused
        self.outcome: Outcome | None = None

    def __repr__(self) -> str:
        return f"<Transaction awaits {self.awaits.name}, {self.accepted} of {len(self.envelope.recipients)} accepted>"

    @property
    def is_refused(self) -> bool:
        """Whether the relay has refused the sender, or every recipient, so that the content changes nothing."""
        all_replied = len(self.replies) == len(self.envelope.recipients)
        return self.refusal is not None or (all_replied and not self.accepted)

    @property
    def is_decided(self) -> bool:
        """Whether the relay has accepted or refused the mail."""
        return self.is_refused or self.final is not None

    @property
    def is_taken(self) -> bool:
        """Whether the relay has accepted the mail, for one recipient at least."""
        return self.final is not None and self.final.code == 250 and not self.is_refused

    @property
    def may_take_long(self) -> bool:
        """Whether the reply that is due may wait until the relay has judged the content."""
        return self.written and self.awaits is Awaits.FINAL

    @property
    def lets_next_start(self) -> bool:
        """Whether the commands of the mail behind it may follow now."""
        return self.awaits is _NOTHING

    @abstractmethod
    def start(self, output: Output, *, reset_first: bool) -> None:
        """Write the commands that need not wait; `reset_first` is whether the mail before it did not end well."""

    def read(self, reply: Reply, output: Output) -> None:
        """Read the next reply to its commands, and write what may follow.

        Raises SessionEnded if the reply is not one that the command may get.
        """
        match self.awaits:
            case Awaits.RECIPIENT:
                self._read_rcpt_reply(reply, output)
            case Awaits.MAIL:
                self._read_mail_reply(reply, output)
            case Awaits.FINAL:
                self._read_final_reply(reply)
            case _:
                check_reset_reply(reply)
                self.awaits = _NOTHING

    def accept(self, final: Reply) -> None:
        """Settle it, where all its replies were 250; `final` is the one to the content."""
        self.awaits = _NOTHING
        self.final = final
        recipients = self.envelope.recipients
        self.accepted = len(recipients)
        self.outcome = tuple(map(result, recipients, repeat(final), repeat(self.redactor), repeat(self.envelope.code)))

    def settle(self, goodbye: str) -> None:
        """Set the outcome to what the relay has decided.

        If it only said that it is closing (421) it has decided nothing, and the connection counts as lost, with
        `goodbye` as the cause. If it also refused recipients that stands, and the others are deferred with 421.
        """
        if self.refusal is not None:
            replies = [self.refusal] * len(self.envelope.recipients)
        else:
            final = self.final
            replies = [reply if final is None or reply.code >= 400 else final for reply in self.replies]
        if all(reply.code == CLOSING for reply in replies):
            self.outcome = ConnectionLost(goodbye)
        else:
            envelope = self.envelope
            self.outcome = tuple(
                map(result, envelope.recipients, replies, repeat(self.redactor), repeat(envelope.code))
            )

    def _read_mail_reply(self, reply: Reply, output: Output) -> None:  # noqa: ARG002  for PLAIN, which writes RCPT now
        if not is_accepted(reply, _MAIL_OK):
            self.refusal = reply
        self.awaits = Awaits.RECIPIENT

    def _read_rcpt_reply(self, reply: Reply, output: Output) -> None:  # noqa: ARG002  as above
        self.accepted += is_accepted(reply, _RCPT_OK)
        self.replies.append(reply)
        if len(self.replies) == len(self.envelope.recipients):
            self.awaits = self._AFTER_RECIPIENTS

    def _read_final_reply(self, reply: Reply) -> None:
        accepted = is_accepted(reply, _MAIL_OK)
        if accepted and not self.written:
            raise SessionEnded("the relay took a mail before it had been sent", reply, doubtful=True)
        self.final = reply
        if not self.written:
            raise SessionEnded("the relay refused a mail before it had been sent", reply, doubtful=False)
        self.awaits = self._AFTER_FINAL


def is_accepted(reply: Reply, good: frozenset[int]) -> bool:
    """Whether the reply is one of `good`, or else a refusal. Raises SessionEnded when it is neither."""
    if reply.code in good:
        return True
    if reply.code < 400:
        raise SessionEnded("unexpected reply", reply, doubtful=True)
    return False


def check_reset_reply(reply: Reply) -> None:
    """Raise SessionEnded unless the reply is one that RSET may get: 250, or a goodbye (RFC 5321, 4.1.1.5)."""
    if reply.code not in {250, CLOSING}:
        raise SessionEnded("unexpected reply to RSET", reply, doubtful=True)
