"""The request ids of a transaction: those that are known to be asked for are read together, all are written together.

It runs in the writer thread. A request id is known by a number, of which the table `known` in memory says the `seq`.
Its rows lie in the order of the calls, so a commit writes to the last pages only, and forgets the first ones.
"""

import hashlib
from collections.abc import Iterable
from sqlite3 import Connection
from typing import NamedTuple

from otpmail.store.sqlite.bulk import delete, flat, insert, padded, padded_rows, placeholders, tuples
from otpmail.store.sqlite.changes import RequestState
from otpmail.store.sqlite.schema import key_number
from otpmail.store.sqlite.series import REQUESTED

_KNOWN = "CREATE TEMP TABLE known(key INTEGER PRIMARY KEY, seq INTEGER NOT NULL)"
_LOAD = "INSERT OR REPLACE INTO known SELECT key, seq FROM request ORDER BY key, seq"
_READ = """
SELECT known.key, request.state, coalesce(claimed.mail, mail.id, remembered.id, ''), request.seq,
    request.fingerprint, request.ends, request.place, claimed.mail IS NOT NULL
FROM known JOIN request USING (seq) LEFT JOIN claimed USING (seq) LEFT JOIN mail USING (seq)
    LEFT JOIN remembered USING (place)
WHERE known.key IN
"""
_WRITE = "INSERT OR REPLACE INTO request"
_SETTLE = """
WITH ended(seq, state, ends, place) AS (VALUES {})
UPDATE request SET state = ended.state, ends = ended.ends, place = ended.place FROM ended WHERE request.seq = ended.seq
"""
_OLDEST = "SELECT seq, key, state, ends, place FROM request WHERE seq > ? ORDER BY seq LIMIT ?"
_MOVED = "SELECT seq, key FROM request WHERE (seq < 0 AND seq > ?) OR (seq > ? AND seq < ?)"
_LOOKED_AT = 512  # rows at a time


class Row(NamedTuple):
    """A request id, as the file keeps it. `ends` is in seconds since the epoch, and counts unless it is running.

    `place` is that of its mail once it has settled, and `mail_id` is empty once that id is forgotten. `is_claim`: no
    table has its mail.
    """

    state: RequestState
    mail_id: str
    seq: int
    fingerprint: bytes
    ends: float
    place: int | None = None
    is_claim: bool = False


class End(NamedTuple):
    """How a request id ends with its mail: its state, until when, and the place of the mail."""

    state: RequestState
    ends: float
    place: int


class Requests:
    """The rows by key that this transaction has read or changed, None for a key without one.

    `_settled` have settled in it without having been read. `_dropped` are the `seq` of rows to delete. `_claims` are
    those that may be in the table `claimed`, `_unclaimed` those of them that this transaction has deleted there.
    """

    def __init__(self) -> None:
        self._rows: dict[int, Row | None] = {}
        self._changed: set[int] = set()
        self._settled: dict[int, tuple[int, End]] = {}
        self._dropped: list[int] = []
        self._claims: set[int] = set()
        self._unclaimed: set[int] = set()
        self._looked_at = 0  # the last `seq` that need not be looked at to forget what is past its time

    def __repr__(self) -> str:
        return f"<Requests {len(self._rows)} read, {len(self._changed) + len(self._settled)} changed>"

    def load(self, connection: Connection) -> None:
        """Read which request ids the file has. Called once, before all else."""
        connection.execute(_KNOWN)
        connection.execute(_LOAD)
        self._claims.update(seq for (seq,) in connection.execute("SELECT seq FROM claimed"))

    def read_ahead(self, connection: Connection, keys: Iterable[int]) -> None:
        """Read the rows of these keys, so that `get` need not."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._rows]
        self._rows |= dict.fromkeys(missing)
        for some in padded(missing):
            for key, state, *others in connection.execute(f"{_READ} ({placeholders(some)})", some):
                self._rows[key] = Row(RequestState(state), *others)

    def get(self, connection: Connection, key: int) -> Row | None:
        """Return the row of a key as this transaction leaves it."""
        if key in self._settled:
            self._write_settled(connection)
        if key not in self._rows:
            self.read_ahead(connection, [key])
        return self._rows[key]

    def keep(self, key: int, row: Row) -> None:
        """Keep a row in place of the one that `get` has returned."""
        self._drop(key, but=row.seq)
        self._rows[key] = row
        self._changed.add(key)

    def release(self, connection: Connection, key: int, mail_id: str, *, is_taken_over: bool = False) -> None:
        """Free a request id, if it runs for that mail and no other; one that was taken over is to be so again."""
        row = self.get(connection, key)
        if row is None or row.mail_id != mail_id or row.state != RequestState.RUNNING:
            return
        if is_taken_over:
            self.keep(key, row._replace(state=RequestState.ORPHANED))
        else:
            self._drop(key)
            self._rows[key] = None
            self._changed.add(key)

    def release_call(self, connection: Connection, key: int, seq: int, mail_id: str) -> None:
        """Free a request id as `release` does, if the call with that `seq` has claimed it for the mail `mail_id`."""
        row = self.get(connection, key)
        if row is not None and row.seq == seq:
            self.release(connection, key, row.mail_id, is_taken_over=row.mail_id != mail_id)

    def settle(self, connection: Connection, key: int, seq: int, end: End) -> None:
        """Note that the mail with that `seq` has settled; without effect where another one has the request id."""
        if key in self._rows:
            row = self._rows[key]
            if row is not None and row.seq == seq:
                self.keep(key, row._replace(**end._asdict(), is_claim=False))
            return
        if key in self._settled:
            self._write_settled(connection)
        self._settled[key] = seq, end

    def forget(self, connection: Connection, now: float, firsts: tuple[int, int]) -> bool:
        """Delete the oldest request ids past their time, and those of mails before the places `firsts` of each kind.

        Returns whether there may be more. Those that run, or end at times of their own, are passed over until `rewind`.
        The `seq` of one whose mail was moved is the negative of its place.
        """
        self.write_changed(connection)
        plain, first = firsts
        gone: list[tuple[int, int]] = connection.execute(_MOVED, (-plain, -first, -REQUESTED)).fetchall()
        rows = connection.execute(_OLDEST, (self._looked_at, _LOOKED_AT)).fetchall()
        for seq, key, state, ends, place in rows:
            is_settled = state == RequestState.SETTLED
            if state != RequestState.RUNNING and (ends <= now or (is_settled and place < first)):
                gone.append((seq, key))
            elif is_settled:
                break
            self._looked_at = seq
        seqs = [seq for seq, _ in gone]
        delete(connection, "request", "seq", seqs)
        self._unclaim(connection, seqs)
        delete(connection, "known", "key", [key for _, key in gone])
        self._rows.clear()
        return len(rows) == _LOOKED_AT and self._looked_at == rows[-1][0]

    def rewind(self) -> None:
        """Look at the oldest ones again: some may have settled since."""
        self._looked_at = 0

    def write_changed(self, connection: Connection) -> None:
        """Write what has changed."""
        delete(connection, "request", "seq", self._dropped)
        self._unclaim(connection, self._dropped)
        self._dropped = []
        kept = [(key, row) for key in self._changed if (row := self._rows[key]) is not None]
        rows = [(row.seq, key, row.state, int(row.ends), row.fingerprint, row.place) for key, row in kept]
        insert(connection, _WRITE, rows)
        insert(connection, "INSERT OR REPLACE INTO known", [(key, row.seq) for key, row in kept])
        claims = [(row.seq, row.mail_id) for _, row in kept if row.is_claim]
        insert(connection, "INSERT OR REPLACE INTO claimed", claims)
        self._claims.update(seq for seq, _ in claims)
        self._unclaimed.difference_update(seq for seq, _ in claims)
        self._unclaim(connection, [row.seq for _, row in kept if not row.is_claim])
        delete(connection, "known", "key", [key for key in self._changed if self._rows[key] is None])
        self._changed.clear()
        self._write_settled(connection)

    def end(self, *, committed: bool) -> None:
        """Forget what was read or changed, since the transaction has ended."""
        if committed:
            self._claims -= self._unclaimed
        self._unclaimed.clear()
        self._rows.clear()
        self._changed.clear()
        self._settled.clear()
        self._dropped.clear()

    def _drop(self, key: int, but: int = 0) -> None:
        row = self._rows.get(key)
        if row is not None and row.seq != but:
            self._dropped.append(row.seq)

    def _write_settled(self, connection: Connection) -> None:
        settled = [(seq, end.state, int(end.ends), end.place) for seq, end in self._settled.values()]
        self._settled.clear()
        for some in padded_rows(settled):
            connection.execute(_SETTLE.format(tuples(some)), flat(some))
        self._unclaim(connection, [seq for seq, *_ in settled])

    def _unclaim(self, connection: Connection, seqs: Iterable[int]) -> None:
        """Delete claims whose mail has come, or will not."""
        gone = [seq for seq in seqs if seq in self._claims]
        delete(connection, "claimed", "seq", gone)
        self._unclaimed.update(gone)


def request_key(caller: str, request_id: str) -> int:
    """Return the key of a request id: a part of a digest, so that keys are short whatever callers send."""
    return key_number(hashlib.blake2b(f"{caller}\0{request_id}".encode(), digest_size=16).digest())
