"""The octets of commands and contents, as RFC 5321 and its extensions write them."""

from otpmail.model import Envelope
from otpmail.smtp.capabilities import Capabilities

DATA = b"DATA\r\n"
RSET = b"RSET\r\n"
UNKNOWN = b"XNIL\r\n"
"""A command that no relay knows, so that each refuses it (RFC 5321, 4.1.5 and 4.2.4)."""
NO_CONTENT = b".\r\n"
"""The end of a content that has no line."""


def mail_and_rcpts(envelope: Envelope, capabilities: Capabilities) -> bytes:
    """MAIL, and RCPT for each recipient."""
    recipients = ">\r\nRCPT TO:<".join(envelope.recipients)
    return f"{_mail(envelope, capabilities)}RCPT TO:<{recipients}>\r\n".encode()


def mail(envelope: Envelope, capabilities: Capabilities) -> bytes:
    """MAIL with the parameters that the mail needs and the relay has announced."""
    return _mail(envelope, capabilities).encode()


def rcpt(address: str) -> bytes:
    """RCPT for one recipient."""
    return f"RCPT TO:<{address}>\r\n".encode()


def stuffed(content: bytes) -> bytes:
    """The content as DATA carries it: a dot before each line that begins with one, and the final dot line.

    RFC 5321, 4.5.2.
    """
    return _stuffed(content, 0, len(content)) + end_of(content)


def end_of(content: bytes) -> bytes:
    """The final dot line, behind a CRLF where the content's last line has none."""
    return NO_CONTENT if content.endswith(b"\r\n") or not content else b"\r\n" + NO_CONTENT


class Stuffed:
    """A content of which each slice has a dot more before each line that begins with one; it is not copied.

    `smtp.output` counts its octets without those dots.
    """

    __slots__ = ("_content",)

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __len__(self) -> int:
        return len(self._content)

    def __getitem__(self, places: slice) -> bytes:
        begin, end, _ = places.indices(len(self._content))
        return _stuffed(self._content, begin, end)


def _stuffed(content: bytes, begin: int, end: int) -> bytes:
    before = max(begin - 2, 0)  # a dot is the first of its line where CRLF is before it
    octets = content[before:end].replace(b"\r\n.", b"\r\n..")[begin - before :]
    return b"." + octets if not begin and octets.startswith(b".") else octets


def _xtext(text: str) -> str:
    """A text as a parameter has it (RFC 3461, 4)."""
    if text.isalnum() and text.isascii():
        return text
    return "".join([chr(o) if 33 <= o <= 126 and o not in b"+=" else f"+{o:02X}" for o in text.encode()])


def _mail(envelope: Envelope, capabilities: Capabilities) -> str:
    parameters = ""
    if capabilities.size is not None:
        parameters = f" SIZE={len(envelope.content)}"
    if envelope.smtputf8:
        parameters += " SMTPUTF8"
    if (envelope.smtputf8 or not envelope.content.isascii()) and "8BITMIME" in capabilities:
        parameters += " BODY=8BITMIME"
    if capabilities.dsn:
        parameters += f" RET=HDRS ENVID={_xtext(envelope.id)}" if envelope.id else " RET=HDRS"
    return f"MAIL FROM:<{envelope.sender}>{parameters}\r\n"
