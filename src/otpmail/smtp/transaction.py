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
from otpmail.smtp.replies import CLOSING, Reply, is_unknown_command, result
from otpmail.smtp.reply_kind import has_one_meaning
from otpmail.smtp.surplus import without_surplus

Results = tuple[RecipientResult, ...]


class Unasked(Results):
    """Results of recipients about whom the relay was not asked, since it announces that it can't take the mail."""

    __slots__ = ()


Outcome = Results | ConnectionLost
"""The result of a mail: one for each recipient, or that the connection was lost before the relay had decided."""

Callback = Callable[[Outcome], None]
"""Called once with the outcome of a mail. It must not raise."""

_REFUSES = 400

GROUP = 100
"""Recipients of one transaction at most. Every relay takes so many (RFC 5321, 4.5.3.1.8), and some take no more."""


class Awaits(Enum):
    """Which reply a transaction awaits next."""

    RESET_BEFORE = auto()  # to the RSET before a mail, in PLAIN only
    MAIL = auto()
    RECIPIENT = auto()
    GO_AHEAD = auto()  # the 354 to DATA
    FINAL = auto()
    RESET = auto()  # to the RSET behind a mail, not in PLAIN
    CHECK = auto()  # to a command that no relay knows, after RSET was refused
    NOTHING = auto()  # the transaction is over


_MAIL, _NOTHING = Awaits.MAIL, Awaits.NOTHING  # globals are read in less time than members of an Enum


class Due(Enum):
    """The work of the relay while a reply is due: RFC 5321, 4.5.3.2, says how long each may take."""

    STEP = auto()  # none of these: a reset, the probe
    COMMAND = auto()  # it looks at a sender or a recipient
    DATA = auto()  # it makes ready for a content
    BLOCK = auto()  # it reads a content
    CONTENT = auto()  # it judges a content of which it has every octet


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
        *("limit", "redactor", "replies", "reset_refused", "written"),
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
        self.limit = 0  # how many recipients the relay takes at once, where that kept it from taking others
        self.reset_refused = False

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
        return self.final is not None and self.final.code < 300 and not self.is_refused

    @property
    def is_over(self) -> bool:
        """Whether no transaction is open behind it: the relay has taken the mail, or a RSET."""
        return self.is_taken or (self._AFTER_FINAL is Awaits.RESET and not self.reset_refused)

    @property
    def due(self) -> Due:
        """The work of the relay while the next reply is due."""
        match self.awaits:
            case Awaits.MAIL | Awaits.RECIPIENT:
                return Due.COMMAND
            case Awaits.GO_AHEAD:
                return Due.DATA
            case Awaits.FINAL:
                return Due.CONTENT if self.written else Due.BLOCK
            case _:
                return Due.STEP

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
            case Awaits.CHECK:
                self._read_check_reply(reply)
            case _:
                self._read_reset_reply(reply)

    def accept(self, final: Reply) -> None:
        """Settle it, where all its replies were 250; `final` is the one to the content."""
        self.awaits = _NOTHING
        self.final = final
        envelope, redactor = self.envelope, self.redactor
        recipients, code = envelope.recipients, envelope.code
        self.accepted = len(recipients)
        if len(recipients) == 1:
            self.outcome = (result(recipients[0], final, redactor, code),)
        else:
            self.outcome = tuple([result(address, final, redactor, code) for address in recipients])

    def settle(self, goodbye: str) -> None:
        """Set the outcome to what the relay has decided.

        If it only said that it is closing (421) it has decided nothing, and the connection counts as lost, with
        `goodbye` as the cause. If it also refused recipients that stands, and the others are deferred with 421. There
        is no result for a recipient that was one too many in this transaction: it goes in a further one.
        """
        recipients = self.envelope.recipients
        if self.refusal is not None:
            replies = [self.refusal] * len(recipients)
        else:
            final = self.final
            replies = [reply if final is None or reply.code >= 400 else final for reply in self.replies]
        results = tuple(map(result, recipients, replies, repeat(self.redactor), repeat(self.envelope.code)))
        if self.refusal is None and self.accepted and not (self.is_taken and self.accepted == len(recipients)):
            results, self.limit = without_surplus(results, self.replies, self.final)
        if self.refusal is None:
            self._mark_addresses(results)
        if results and all(result.code == CLOSING for result in results):
            self.outcome = ConnectionLost(goodbye)
        else:
            self.outcome = results

    def _mark_addresses(self, results: Results) -> None:
        """Mark the refusals in which the sender and other recipients have no part: of RCPT, or of content for one.

        A reply with enhanced codes of several meanings is not marked: it is about more than the address.
        """
        replies = dict(zip(self.envelope.recipients, self.replies, strict=True))
        for one in results:
            if one.code < _REFUSES:
                continue
            reply = replies[one.address]
            if reply.code < _REFUSES:
                if self.accepted != 1 or self.final is None:
                    continue
                reply = self.final
            if has_one_meaning(reply):
                one.is_about_address = True  # type: ignore[misc]  # it was made a moment ago, and nobody has seen it

    def doubt(self, cause: str) -> None:
        """Set the outcome of a mail whose replies are not believed: the relay may have it once its content has left."""
        self.outcome = ConnectionLost(cause, uncertain=self.written, offered=self.envelope.recipients)

    def miss(self, cause: str) -> None:
        """Set the outcome of a mail that was sent in vain, and must go over another connection."""
        self.outcome = ConnectionLost(cause, not_started=True, offered=self.envelope.recipients)

    def note_limit(self) -> None:
        """Find out the limit of recipients where the relay said goodbye amid its replies to RCPT, some too many."""
        if self.refusal is None and self.accepted:
            texts = repeat(self.redactor), repeat(self.envelope.code)
            results = tuple(map(result, self.envelope.recipients, self.replies, *texts))
            _, self.limit = without_surplus(results, self.replies, None)

    def _read_mail_reply(self, reply: Reply, output: Output) -> None:  # noqa: ARG002  for PLAIN, which writes RCPT now
        if not is_accepted(reply):
            self.refusal = reply
        self.awaits = Awaits.RECIPIENT

    def _read_rcpt_reply(self, reply: Reply, output: Output) -> None:  # noqa: ARG002  as above
        self.accepted += is_accepted(reply)
        self.replies.append(reply)
        if len(self.replies) == len(self.envelope.recipients):
            self.awaits = self._AFTER_RECIPIENTS

    def _read_reset_reply(self, reply: Reply) -> None:
        """Read the reply to RSET. A refusal may also be the true reply to the content, one place late.

        It is not where it says that the command is unknown, as no content is. Otherwise a command follows that no relay
        knows (`flights`). A relay that is in step refuses that one, and another one says 250 to a RSET in that place.
        """
        if reply.code in {250, CLOSING}:
            self.awaits = _NOTHING
            return
        if reply.code < 400:
            raise SessionEnded("unexpected reply to RSET", reply, doubtful=True)
        self.reset_refused = True
        self.awaits = _NOTHING if is_unknown_command(reply) else Awaits.CHECK

    def _read_check_reply(self, reply: Reply) -> None:
        if is_accepted(reply):
            raise SessionEnded("unexpected reply to a command that no relay knows", reply, doubtful=True)
        self.awaits = _NOTHING

    def _read_final_reply(self, reply: Reply) -> None:
        accepted = is_accepted(reply)
        if accepted and not self.written:
            raise SessionEnded("the relay took a mail before it had been sent", reply, doubtful=True)
        self.final = reply
        if not self.written:
            raise SessionEnded("the relay refused a mail before it had been sent", reply, doubtful=False)
        self.awaits = self._AFTER_FINAL


def ignore(_: Outcome) -> None:
    """Be the callback of a mail whose caller reads the outcome from the transaction."""


def is_accepted(reply: Reply) -> bool:
    """Whether the relay agrees, by the first digit of its reply (RFC 5321, 4.2.1), or else refuses.

    Raises SessionEnded when it does neither.
    """
    if reply.code < 300:
        return True
    if reply.code < 400:
        raise SessionEnded("unexpected reply", reply, doubtful=True)
    return False
