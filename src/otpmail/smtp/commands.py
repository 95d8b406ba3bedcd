"""The octets of commands and contents, as RFC 5321 and its extensions write them."""

from otpmail.model import Envelope
from otpmail.smtp.capabilities import Capabilities

DATA = b"DATA\r\n"
RSET = b"RSET\r\n"
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
    content = content.replace(b"\r\n.", b"\r\n..") if b"\r\n." in content else content
    if content.startswith(b"."):
        content = b"." + content
    return content + (b".\r\n" if content.endswith(b"\r\n") or not content else b"\r\n.\r\n")


def _mail(envelope: Envelope, capabilities: Capabilities) -> str:
    parameters = ""
    if capabilities.size is not None:
        parameters = f" SIZE={len(envelope.content)}"
    if envelope.smtputf8:
        parameters += " SMTPUTF8"
    if (envelope.smtputf8 or not envelope.content.isascii()) and "8BITMIME" in capabilities:
        parameters += " BODY=8BITMIME"
    return f"MAIL FROM:<{envelope.sender}>{parameters}\r\n"
