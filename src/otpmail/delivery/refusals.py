"""Tells refusals of a mail from refusals because too much came at once, or too late.

The second kind is no attempt: the mail goes again over another connection, or later. The relay's owner learns of it,
and gives the relay less.
"""

from otpmail.errors import ConnectionLost
from otpmail.relays.connection import Connection
from otpmail.relays.refusal import PRESSURE
from otpmail.smtp.reply_kind import NOT_SIGNED_IN, ReplyKind, kind_of_result
from otpmail.smtp.transaction import Results

REFUSED = 400
"""Reply codes from this one on refuse."""
_REJECTED = 500  # for good
_TIMED_OUT = "4.4.2"  # "bad connection" (RFC 3463, 3.5): what a relay says before it closes an idle connection


def is_no_attempt(connection: Connection, results: Results) -> bool:
    """Whether the relay refuses the whole mail for now, for a reason that has nothing to do with it."""
    kind = kind_of_result(results[-1])
    if kind in PRESSURE:
        connection.owner.refused(connection, kind)
    elif _is_used_up(connection, kind, results[-1].code):
        connection.dismiss("the relay takes no more mails on this connection")
    elif not (results[-1].enhanced_code == _TIMED_OUT and connection.crossed):  # SES and Gmail say 451, not 421
        return False
    return all(REFUSED <= result.code < _REJECTED or result.code == NOT_SIGNED_IN for result in results)


def _is_used_up(connection: Connection, kind: ReplyKind, code: int) -> bool:
    """Whether another connection may take the mail: this one has taken others, and ends by their number or by time."""
    return connection.sent > 0 and (kind is ReplyKind.CONNECTION_USED_UP or code == NOT_SIGNED_IN)


def judged(connection: Connection, lost: ConnectionLost) -> ConnectionLost:
    """Return the loss as one that has nothing to do with its mail, if that is certain."""
    if lost.uncertain:
        return lost
    kind = connection.parting_kind
    if kind in PRESSURE:
        connection.owner.refused(connection, kind)
    elif not connection.crossed:
        return lost
    return ConnectionLost(str(lost), not_started=True, offered=lost.offered)
