"""Keeps the content of settled mails that may be retried, in the writer thread and within its transactions."""

from collections.abc import Sequence
from dataclasses import replace
from sqlite3 import Connection

from otpmail.model import Mail
from otpmail.store import codec
from otpmail.store.base import Entry
from otpmail.store.cipher import Cipher
from otpmail.store.sqlite.bulk import delete
from otpmail.store.sqlite.changes import Content

_MOVE = "INSERT OR REPLACE INTO failed SELECT ?, ?, length(payload), ?, payload FROM mail WHERE seq = ?"
_INSERT = "INSERT OR REPLACE INTO failed VALUES (?, ?, ?, ?, ?)"
_READ = "SELECT progress, payload FROM failed WHERE place = ? AND ends > ?"
_ENDED = "DELETE FROM failed WHERE ends <= ?"
_OLDEST = "SELECT place, octets FROM failed ORDER BY ends LIMIT ?"
Kept = tuple[int, str, Content]
"""The place and the id of a settled mail, and its content."""

_PART = 16  # of all that there may be: after so much more it is looked again
_SLICE = 200  # contents that are dropped at a time for want of room


class Contents:
    """The contents of one file, encrypted by `cipher`: `most_octets` together, or the oldest are dropped."""

    def __init__(self, cipher: Cipher, *, most_octets: int) -> None:
        self._cipher = cipher
        self._most_octets = most_octets
        self._added = 1  # octets since it was last looked whether there are too many

    def __repr__(self) -> str:
        return f"<Contents of {self._most_octets} octets at most>"

    def keep(self, seq: int, kept: Kept, accepted: bytes | None, connection: Connection) -> None:
        """Keep the content of a mail. `accepted` is its payload where this transaction has accepted it."""
        place, mail_id, content = kept
        progress = self._cipher.seal(content.progress, "progress", mail_id)
        self._added += len(content.entry)
        if accepted is not None or not connection.execute(_MOVE, (place, content.ends, progress, seq)).rowcount:
            payload = accepted or self._cipher.seal(content.entry, "mail", mail_id)
            connection.execute(_INSERT, (place, content.ends, len(payload), progress, payload))
        if self._added > self._most_octets // _PART:
            self._drop_excess(connection)

    def read(self, place: int, mail: Mail, now: float, connection: Connection) -> Entry | None:
        """Return the entry of the settled mail at a place, as it settled; None without its content."""
        row = connection.execute(_READ, (place, now)).fetchone()
        if row is None:
            return None
        progress, payload = row
        entry = codec.decode_entry(self._cipher.open(payload, "mail", mail.id))
        progress = codec.decode_progress(self._cipher.open(progress, "progress", mail.id))
        return replace(entry, mail=mail, progress=progress)

    def drop(self, places: Sequence[int], connection: Connection) -> None:
        """Drop the content of the mails at these places, where there is any."""
        delete(connection, "failed", "place", places)

    def forget(self, now: float, connection: Connection) -> None:
        """Drop what is past its time, and the oldest where all take more than they may."""
        connection.execute(_ENDED, (now,))
        if self._added:
            self._drop_excess(connection)

    def _drop_excess(self, connection: Connection) -> None:
        self._added = 0
        [octets] = connection.execute("SELECT sum(octets) FROM failed").fetchone()
        excess = (octets or 0) - self._most_octets
        while excess > 0:
            dropped = []
            for place, size in connection.execute(_OLDEST, (_SLICE,)).fetchall():
                if excess > 0:
                    dropped.append(place)
                    excess -= size
            self.drop(dropped, connection)
