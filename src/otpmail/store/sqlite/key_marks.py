"""Notes in a file with which keys it is written, so that a start with wholly different ones can say so."""

from sqlite3 import Connection

from otpmail.store.digests import have_a_key_in_common
from otpmail.store.sqlite.migration import commit

_NAME = b"keys"  # among code records, whose names are longer
_NEVER = 1e12
"""When the row ends, for the sweep of code records."""


def note_keys(connection: Connection, marks: bytes) -> bool:
    """Note the marks of our keys (`store.digests.Digests.marks`); returns whether the one before had any of them."""
    with commit(connection):
        before = connection.execute("SELECT record FROM code WHERE key = ?", (_NAME,)).fetchone()
        connection.execute("INSERT OR REPLACE INTO code VALUES (?, ?, ?)", (_NAME, _NEVER, marks))
    return before is None or have_a_key_in_common(marks, before[0])
