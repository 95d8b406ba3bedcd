"""Finds the id that a relay gave to a mail in its reply to the content, as each kind of relay writes it. Pure.

RFC 5321 leaves the words of a reply to the relay, so these are forms that were seen.
"""

import re
from collections.abc import Iterable, Sequence

from otpmail.model import RecipientResult

_ID = r"[A-Za-z0-9][\w.+=/@-]{3,127}"
_FORMS = re.compile(
    rf"""
      \bqueued\ as\ <?(?P<postfix> [A-Za-z0-9] [\w.+=/@-]{{1,127}} )  # Postfix and those that answer like it
    | \b(?: id | InternalId ) =\ ? <?(?P<exim> {_ID} )  # Exim; Microsoft 365
    | \bqp\ (?P<qmail> \d{{1,12}} ) \b
    | \bqueued\ with\ id\ (?P<stalwart> {_ID} )
    | \bqueued\ \( (?P<haraka> {_ID} ) \)
    | ^ (?P<sendmail> (?=\S*\d) {_ID} ) \ message\ accepted\b  # sendmail, OpenSMTPD
    | ^ ok:?\ +\d{{9,11}}\ +(?P<gmail> {_ID} ) \ -\ gsmtp
    | ^ ok:?\ +(?P<ses> (?=\S*\d) [A-Za-z0-9] [\w-]{{15,127}} ) \ * $  # SES
    """,
    re.IGNORECASE | re.VERBOSE,
)
_NOT_ITS_END = ".,;"


def queue_id(reply: str) -> str:
    """Return the relay's id of a mail, from the text of its reply (without codes) to the content; empty without one."""
    found = _FORMS.search(reply)
    if found is None or found.lastgroup is None:
        return ""
    return found[found.lastgroup].rstrip(_NOT_ITS_END)


def queue_ids(results: Sequence[RecipientResult], *, most: int) -> Iterable[str]:
    """Return the relay's ids of a mail: one for each transaction, each of which has a reply of its own.

    No more than `most` of the replies are read.
    """
    replies = dict.fromkeys([result.reply for result in results if 200 <= result.code < 300])  # `accepted`
    return dict.fromkeys(filter(None, map(queue_id, list(replies)[:most])))
