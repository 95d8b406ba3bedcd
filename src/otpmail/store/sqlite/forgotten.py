"""Keeps in a file whom callers want forgotten, until the mails that were open then have settled."""

import struct
from sqlite3 import Connection

from otpmail.store.forgotten import Span

_PREFIX = b"forgotten"  # among code records, whose names are shorter, and whose sweep drops what has ended
_BEHIND = b"forgotteo"
_SINCE = struct.Struct("<d")  # the digest of the caller follows
_READ = "SELECT key, record, ends FROM code WHERE key > ? AND key < ?"


def read_forgotten(connection: Connection) -> dict[bytes, Span]:
    """Return the persons by their names, since when and until when."""
    rows = connection.execute(_READ, (_PREFIX, _BEHIND))
    found = {}
    for key, record, ends in rows:
        (since,) = _SINCE.unpack_from(record)
        found[key[len(_PREFIX) :]] = Span(since, ends, record[_SINCE.size :])
    return found


def write_forgotten(name: bytes, span: Span, connection: Connection) -> None:
    """Keep a person by its name."""
    row = (_PREFIX + name, span.until, _SINCE.pack(span.since) + span.owner)
    connection.execute("INSERT OR REPLACE INTO code VALUES (?, ?, ?)", row)
