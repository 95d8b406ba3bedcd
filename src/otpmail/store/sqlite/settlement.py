"""The change that settles a mail in a file: its record, and how long that and its request id are kept."""

from otpmail.model import Mail
from otpmail.store import codec
from otpmail.store.base import REQUEST_SECONDS, Entry
from otpmail.store.sqlite.changes import Content, Settlement
from otpmail.store.sqlite.requests import request_key


def settlement_of(mail: Mail, seq: int, *, forgotten: float, keep_request: bool, entry: Entry | None) -> Settlement:
    """Return the change. The mail is remembered until `forgotten`, and the content of `entry` kept for a retry."""
    request_ends = mail.create_time + REQUEST_SECONDS if keep_request and mail.request_id else 0.0
    octets = codec.encode_settled(mail, forgotten=forgotten, request_ends=request_ends, fingerprint=b"")
    request = request_key(mail.caller, mail.request_id) if mail.request_id else None
    content = None
    if entry is not None:
        content = Content(forgotten, codec.encode_entry(entry), codec.encode_progress(entry.progress))
    return Settlement(seq, mail.id, mail.caller, octets, request, request_ends, forgotten, content)
