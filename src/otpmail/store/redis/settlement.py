"""The note that settles a mail on the server: its record, and how long that and its request id are kept."""

from functools import partial
from typing import NamedTuple

from otpmail.model import Mail
from otpmail.store import codec
from otpmail.store.base import Entry
from otpmail.store.redis.notes import Held, Note
from otpmail.store.redis.records import Records
from otpmail.store.retention import Retention


class Times(NamedTuple):
    """When a mail settles, for how long it is remembered, and whether its request id is kept."""

    now: float
    retention: Retention
    keep_request: bool


def settlement_of(
    mail: Mail, held: Held, records: Records, times: Times, entry: Entry | None, *, caller: bytes
) -> tuple[Note, int]:
    """Return the note, and how many octets its record has. The content of `entry` is kept for a retry.

    `caller` is a digest of the caller's name (`keys.Keys.caller`).
    """
    now, settle_time = times.now, mail.settle_time or times.now
    forgotten = settle_time + times.retention.seconds
    keeps = times.keep_request and mail.request_id
    request_ends = mail.create_time + times.retention.request_seconds if keeps else 0.0
    octets = codec.encode_settled(mail, forgotten=forgotten, request_ends=request_ends, fingerprint=b"")
    numbers = (
        _milliseconds(max(forgotten, request_ends) - now),
        request_ends,
        _milliseconds(request_ends - now),
        _milliseconds(forgotten - now),
    )
    seal = partial(records.seal_settled, mail.id, octets)
    content = bytes if entry is None else partial(records.seal_entry, entry)
    return Note("settle", mail.id, held, seal, numbers, settle_time, content, caller), len(octets)


def _milliseconds(seconds: float) -> int:
    """Return a time for which a key is kept: the server takes no less than one."""
    return max(1, int(1000 * seconds))
