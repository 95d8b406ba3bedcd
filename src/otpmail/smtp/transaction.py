"""One mail on its way: what is said of it, what the relay has answered so far, and what that makes of it. No I/O.

Which of its commands may go when, and whose reply is whose, is the session's to know.
"""

from enum import Enum, auto
from typing import Any

from otpmail.errors import ConnectionLost
from otpmail.model import Envelope, RecipientResult
from otpmail.smtp.capabilities import Capabilities
from otpmail.smtp.replies import CLOSING, Reply, result

Results = tuple[RecipientResult, ...]

GROUP = 100
"""Recipients that a mail is offered for at once: every relay takes as many (RFC 5321, 4.5.3.1.8), not all take more."""


class Awaits(Enum):
    """Which reply a transaction awaits next."""

    RESET_BEFORE = auto()  # in PLAIN
    MAIL = auto()
    RECIPIENT = auto()
    GO_AHEAD = auto()  # the 354 to DATA
    FINAL = auto()
    RESET = auto()  # behind it; not in PLAIN


_MAIL, _RESET = Awaits.MAIL, Awaits.RESET  # naming them takes its time


class Transaction:
    """One mail on its way: what the relay has said of it so far, and in the end its `outcome`.

    `tag` is for whoever began it. `written`: the last octet of the content has been taken to be sent.
    """

    __slots__ = ("accepted", "awaits", "begun", "envelope", "final", "outcome", "refusal", "replies", "tag", "written")

    def __init__(self, envelope: Envelope, tag: Any = None) -> None:
        self.envelope = envelope
        self.tag = tag
        self.begun = False
        self.written = False
        self.awaits = _MAIL
        self.refusal: Reply | None = None  # of MAIL
        self.replies: list[Reply] = []  # to RCPT, in the order of the recipients
        self.accepted = 0
        self.final: Reply | None = None  # to the content, or to DATA where that was refused
        self.outcome: Results | ConnectionLost | None = None

    def __repr__(self) -> str:
        return f"<Transaction awaits {self.awaits.name}, {self.accepted} of {len(self.envelope.recipients)} accepted>"

    @property
    def unheard(self) -> bool:
        """Whether the relay has said nothing of it yet."""
        return self.awaits is _MAIL

    @property
    def hopeless(self) -> bool:
        """Whether the relay has refused the sender, or every recipient: the content can't change that."""
        heard_all = len(self.replies) == len(self.envelope.recipients)
        return self.refusal is not None or (heard_all and not self.accepted)

    @property
    def decided(self) -> bool:
        """Whether the relay has said what becomes of it."""
        return self.hopeless or self.final is not None

    def results(self) -> Results | ConnectionLost:
        """What the relay has decided.

        Where all it said is that it is closing (421), it has decided nothing, and the mail goes again at once. Where it
        also refused somebody, that stands, and 421 puts the others off.
        """
        if self.refusal is not None:
            heard = [self.refusal] * len(self.envelope.recipients)
        else:
            final = self.final
            heard = [reply if final is None or reply.code >= 400 else final for reply in self.replies]
        if heard[0].code == CLOSING and all(reply.code == CLOSING for reply in heard):
            return ConnectionLost(f"the relay said: {heard[0]}")
        return tuple(map(result, self.envelope.recipients, heard))

    def take(self, final: Reply) -> None:
        """Settle it: all its replies were 250, this one to the content."""
        self.awaits = _RESET
        self.final = final
        recipients = self.envelope.recipients
        self.accepted = len(recipients)
        self.outcome = tuple([result(address, final) for address in recipients])


def commands(envelope: Envelope, announcement: Capabilities) -> bytes:
    """MAIL, and RCPT for each recipient."""
    recipients = [_rcpt_line(address) for address in envelope.recipients]
    return (_mail_line(envelope, announcement) + "".join(recipients)).encode()


def mail_command(envelope: Envelope, announcement: Capabilities) -> bytes:
    """MAIL with the parameters that the mail needs and the relay has announced."""
    return _mail_line(envelope, announcement).encode()


def rcpt_command(address: str) -> bytes:
    """RCPT for one recipient."""
    return _rcpt_line(address).encode()


def _mail_line(envelope: Envelope, announcement: Capabilities) -> str:
    parameters = ""
    if announcement.size is not None:
        parameters = f" SIZE={len(envelope.content)}"
    if envelope.smtputf8:
        parameters += " SMTPUTF8"
    if (envelope.smtputf8 or not envelope.content.isascii()) and "8BITMIME" in announcement:
        parameters += " BODY=8BITMIME"
    return f"MAIL FROM:<{envelope.sender}>{parameters}\r\n"


def _rcpt_line(address: str) -> str:
    return f"RCPT TO:<{address}>\r\n"


def stuff(content: bytes) -> bytes:
    """Content as DATA carries it: a dot before each line that opens with one, and the final dot line.

    RFC 5321, 4.5.2.
    """
    stuffed = content.replace(b"\r\n.", b"\r\n..") if b"\r\n." in content else content
    if stuffed.startswith(b"."):
        stuffed = b"." + stuffed
    return stuffed + (b".\r\n" if stuffed.endswith(b"\r\n") or not stuffed else b"\r\n.\r\n")
