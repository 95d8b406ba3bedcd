"""Failed dials as errors that hold the relay's reply, and what such a reply is about."""

from typing import Final

from otpmail.errors import ConnectFailed
from otpmail.model import RecipientResult
from otpmail.smtp.redaction import NO_SECRETS, Redactor
from otpmail.smtp.replies import Reply, result
from otpmail.smtp.reply_kind import Command, ReplyKind, kind_of

PRESSURE: Final = frozenset({ReplyKind.TOO_MANY_CONNECTIONS, ReplyKind.TOO_FAST})
"""The kinds of refusals that are about how much comes at once, and not about the mail."""


def read_reply(code: int, message: str, redactor: Redactor = NO_SECRETS) -> RecipientResult:
    """Return a reply as aiosmtplib read it, with its enhanced code apart and without secrets."""
    return result("", Reply(code, message.encode("utf-8", "surrogateescape")), redactor)


def failed_by(reply: RecipientResult, kind: type[ConnectFailed], description: str) -> ConnectFailed:
    """Return the error of a dial that this reply made fail."""
    return kind(description, code=reply.code, enhanced_code=reply.enhanced_code, reply=reply.reply)


def kind_of_error(error: ConnectFailed) -> ReplyKind:
    """Return what the reply is about that made a dial fail; OTHER if there was none."""
    return kind_of(Command.CONNECT, error.code, error.enhanced_code, error.reply)
