"""The request ids of a transaction: those that are known to be asked for are read together, all are written together.

It runs in the writer thread, and holds nothing between two transactions.
"""

from collections.abc import Iterable, Sequence
from sqlite3 import Connection
from typing import NamedTuple

from otpmail.store.sqlite.bulk import delete, flat, insert, parts, places, tuples
from otpmail.store.sqlite.changes import RequestState

_READ = "SELECT key, state, mail, seq, fingerprint, ends FROM request WHERE key IN"
_WRITE = "INSERT OR REPLACE INTO request VALUES"
_SETTLE = """
WITH ended(key, mail, state, ends) AS (VALUES {})
UPDATE request SET state = ended.state, ends = ended.ends FROM ended
WHERE request.key = ended.key AND request.mail = ended.mail
"""
_FORGET = """
WITH old(key, seq) AS (VALUES {})
DELETE FROM request WHERE key IN (SELECT old.key FROM old JOIN request USING (key) WHERE request.seq = old.seq)
"""


class Row(NamedTuple):
    """What is kept of a request id. `ends` is in seconds since the epoch, and counts unless it is running."""

    state: RequestState
    mail_id: str
    seq: int
    fingerprint: bytes
    ends: float


class Requests:
    """The rows by key that this transaction has read or changed, None for a key without one.

    `_settled` have settled in it without having been read.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, Row | None] = {}
        self._changed: set[bytes] = set()
        self._settled: dict[bytes, tuple[str, RequestState, float]] = {}

    def __repr__(self) -> str:
        return f"<Requests {len(self._rows)} read, {len(self._changed) + len(self._settled)} changed>"

    def read_ahead(self, connection: Connection, keys: Iterable[bytes]) -> None:
        """Read the rows of these keys, so that `get` need not."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._rows]
        self._rows |= dict.fromkeys(missing)
        for some in parts(missing):
            for key, state, *others in connection.execute(f"{_READ} ({places(some)})", some):
                self._rows[key] = Row(RequestState(state), *others)

    def get(self, connection: Connection, key: bytes) -> Row | None:
        """Return the row of a key as this transaction leaves it."""
        if key in self._settled:
            self._write_settled(connection)
        if key not in self._rows:
            self.read_ahead(connection, [key])
        return self._rows[key]

    def keep(self, key: bytes, row: Row) -> None:
        """Keep a row in place of the one that `get` has returned."""
        self._rows[key] = row
        self._changed.add(key)

    def release(self, connection: Connection, key: bytes, mail_id: str) -> None:
        """Free a request id, if it runs for that mail and no other."""
        row = self.get(connection, key)
        if row is not None and row.mail_id == mail_id and row.state == RequestState.RUNNING:
            self._rows[key] = None
            self._changed.add(key)

    def release_call(self, connection: Connection, key: bytes, seq: int) -> None:
        """Free a request id, if it runs for the mail with that `seq`."""
        row = self.get(connection, key)
        if row is not None and row.seq == seq:
            self.release(connection, key, row.mail_id)

    def settle(self, connection: Connection, key: bytes, mail_id: str, state: RequestState, ends: float) -> None:
        """Note that the mail of a request id has settled; without effect where another mail has the id."""
        if key in self._rows:
            row = self._rows[key]
            if row is not None and row.mail_id == mail_id:
                self.keep(key, row._replace(state=state, ends=ends))
            return
        if key in self._settled:
            self._write_settled(connection)
        self._settled[key] = mail_id, state, ends

    def forget(self, connection: Connection, requests: Sequence[tuple[bytes, int]]) -> None:
        """Delete request ids that still belong to the mail with that `seq`."""
        self.write_out(connection)
        for some in parts(requests):
            connection.execute(_FORGET.format(tuples(some)), flat(some))
        self._rows.clear()

    def write_out(self, connection: Connection) -> None:
        """Write what has changed."""
        kept = [(key, row) for key in self._changed if (row := self._rows[key]) is not None]
        insert(connection, _WRITE, [(key, *row) for key, row in kept])
        delete(connection, "request", "key", [key for key in self._changed if self._rows[key] is None])
        self._changed.clear()
        self._write_settled(connection)

    def end(self) -> None:
        """Forget what was read or changed, since the transaction has ended."""
        self._rows.clear()
        self._changed.clear()
        self._settled.clear()

    def _write_settled(self, connection: Connection) -> None:
        settled = [(key, *fate) for key, fate in self._settled.items()]
        self._settled.clear()
        for some in parts(settled):
            connection.execute(_SETTLE.format(tuples(some)), flat(some))
