"""Tells what a failed dial, or the end of a connection, is about: by the relay's reply in the words of the error."""

import re
from typing import Final

from otpmail.errors import ConnectFailed
from otpmail.smtp.reply_kind import Command, ReplyKind, kind_of

_REPLY = re.compile(r"\b([45]\d\d) (?:([45]\.\d{1,3}\.\d{1,3}) )?(.*)")

PRESSURE: Final = frozenset({ReplyKind.TOO_MANY_CONNECTIONS, ReplyKind.TOO_FAST})
"""The kinds of refusals that are about how much comes at once, and not about the mail."""


def kind_of_error(error: ConnectFailed) -> ReplyKind:
    """Return what the reply is about that made a dial fail; OTHER if there was none."""
    return _kind_of(Command.CONNECT, str(error))


def kind_of_end(cause: str) -> ReplyKind:
    """Return what the reply is about that ended a connection, by the cause of its end; OTHER if there was none."""
    return _kind_of(Command.MAIL, cause)


def _kind_of(command: Command, words: str) -> ReplyKind:
    reply = _REPLY.search(words)
    return ReplyKind.OTHER if reply is None else kind_of(command, int(reply[1]), reply[2] or "", reply[3])
