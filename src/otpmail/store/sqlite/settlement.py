"""The change that settles a mail in a file: its record, and how long that and its request id are kept."""

from otpmail.model import Mail
from otpmail.store import codec
from otpmail.store.base import Entry
from otpmail.store.sqlite.changes import Content, Settlement
from otpmail.store.sqlite.requests import request_key


def settlement_of(mail: Mail, seq: int, *, forgotten: float, request_ends: float, entry: Entry | None) -> Settlement:
    """Return the change. The mail is remembered until `forgotten`, and the content of `entry` kept for a retry.

    A repeated request id finds it until `request_ends`, 0.0 for one that finds nothing.
    """
    octets = codec.encode_settled(mail, forgotten=forgotten, request_ends=request_ends, fingerprint=b"")
    request = request_key(mail.caller, mail.request_id) if mail.request_id else None
    content = None
    if entry is not None:
        content = Content(forgotten, codec.encode_entry(entry), codec.encode_progress(entry.progress))
    return Settlement(seq, mail.id, mail.caller, octets, request, request_ends, forgotten, content)
