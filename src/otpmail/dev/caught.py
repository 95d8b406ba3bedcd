"""A mail that was caught: by the relay of `otpmail dev`, or for the tests of another program. Pure."""

from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.parser import BytesParser

from otpmail.address import parse_address
from otpmail.dev.bodies import body_of
from otpmail.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class CaughtMail:
    """A mail as the relay got it, with its envelope.

    `recipients` are those that the relay took. `refused` are the others, each with the reply. A mail without recipients
    was refused: it has no content if the client sent none. `code` is the one-time code in it, for tests alone.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes = field(repr=False)
    refused: tuple[tuple[str, str], ...] = ()
    code: str = field(default="", repr=False)

    @property
    def message(self) -> EmailMessage:
        """The mail, parsed; of one that is nested deeper than Python parses, the header fields alone."""
        try:
            return message_from_bytes(self.content, policy=policy.default)
        except RecursionError:
            return BytesParser(policy=policy.default).parsebytes(self.content, headersonly=True)

    @property
    def subject(self) -> str:
        """The subject."""
        return str(self.message["Subject"] or "")

    @property
    def text(self) -> str:
        """The text, empty without one."""
        return body_of(self.message, "plain")

    @property
    def html(self) -> str:
        """The HTML, empty without one."""
        return body_of(self.message, "html")


def key_of(address: str) -> str:
    """Return the name that finds mails to an address: its mailbox, or the text itself if that is no mailbox."""
    try:
        return parse_address(address, "address").key
    except InvalidArgument:
        return address.strip().lower()
