"""Reads and writes the rows of mails and request ids, in the writer thread and within its transactions."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from sqlite3 import Connection
from sys import maxsize
from typing import TypeVar

from otpmail.errors import StoreError
from otpmail.model import Mail
from otpmail.store import codec
from otpmail.store.base import Accepted, Conflict, Earlier, Entry, Running, TakenOver
from otpmail.store.cipher import Cipher
from otpmail.store.sqlite.changes import Acceptance, Claim, Content, RequestState, Settlement
from otpmail.store.sqlite.contents import Contents

T = TypeVar("T")

Answer = Accepted | Earlier | Running | Conflict

_TOGETHER = 200  # rows in one statement
_FREE_MOST = 512  # settled mails that are forgotten at a time

_ACCEPTED = Accepted()

_INSERT_REQUEST = "INSERT OR REPLACE INTO request VALUES (?, ?, ?, ?, ?, ?)"
_INSERT_PROGRESS = "INSERT OR REPLACE INTO progress VALUES (?, ?)"
_REOPEN_REQUEST = "UPDATE request SET state = ? WHERE key = ?"
_READ_REQUEST = "SELECT state, mail, seq, fingerprint, ends FROM request WHERE key = ?"
_SETTLE_REQUEST = "UPDATE request SET state = ?, ends = ? WHERE key = ? AND mail = ?"


class Rows:
    """The rows of one file, whose content `cipher` encrypts. It remembers `most` settled mails, and `most_requests`.

    The contents of those that may be retried take `most_octets`.
    """

    def __init__(self, cipher: Cipher, *, most: int, most_requests: int, most_octets: int = maxsize) -> None:
        self._cipher = cipher
        self._contents = Contents(cipher, most_octets=most_octets)
        self._most = most
        self._most_requests = most_requests
        self._accepted: dict[int, tuple[int, str, int, float, bytes]] = {}
        self._settled_rows: dict[int, tuple[object, ...]] = {}
        self._kept: dict[int, tuple[str, Content]] = {}

    def __repr__(self) -> str:
        return f"<Rows {self._cipher!r}>"

    def accept(self, acceptances: Sequence[Acceptance], connection: Connection) -> list[Answer]:
        """Keep mails with their request ids; one whose request id came before is not kept."""
        return [self._accept(connection, one) for one in acceptances]

    def _accept(self, connection: Connection, one: Acceptance) -> Answer:
        if one.claim is not None:
            earlier = self._look(connection, one.claim)
            if earlier is not None and not isinstance(earlier, TakenOver):
                return earlier
            self._keep_request(connection, one.claim)
        payload = self._cipher.seal(one.octets, "mail", one.mail_id)
        self._accepted[one.seq] = (one.seq, one.mail_id, one.priority, one.deadline, payload)
        return _ACCEPTED

    def claim(self, claim: Claim, connection: Connection) -> Answer | TakenOver:
        """Keep a request id for a mail, unless it came before."""
        earlier = self._look(connection, claim)
        if earlier is None:
            self._keep_request(connection, claim)
            return _ACCEPTED
        if isinstance(earlier, TakenOver):
            self._keep_request(connection, replace(claim, mail_id=earlier.mail_id))
        return earlier

    def release(self, key: bytes, mail_id: str, connection: Connection) -> None:
        """Free a request id, if it was claimed for that mail and no other."""
        connection.execute(
            "DELETE FROM request WHERE key = ? AND mail = ? AND state = ?", (key, mail_id, RequestState.RUNNING)
        )

    def defer(self, seq: int, mail_id: str, octets: bytes, connection: Connection) -> None:
        """Keep how far a mail has come."""
        self.write_out(connection)
        if connection.execute("SELECT 1 FROM mail WHERE seq = ?", (seq,)).fetchone():
            connection.execute(_INSERT_PROGRESS, (seq, self._cipher.seal(octets, "progress", mail_id)))

    def begin(self, progresses: Sequence[tuple[int, str, bytes]], connection: Connection) -> None:
        """Keep that attempts at mails begin: `seq`, id and progress of each."""
        for seq, mail_id, octets in progresses:
            self.defer(seq, mail_id, octets, connection)

    def reopen(self, one: Acceptance, settle_time: float, now: float, connection: Connection) -> int:
        """Keep a settled mail as an accepted one again; its `seq`, or 0 where it is not as it settled at that time."""
        self.write_out(connection)
        found = self._contents.read(one.mail_id, now, connection)
        if found is None or found[1].mail.settle_time != settle_time:
            return 0
        seq = found[0]
        if one.claim is not None:
            row = connection.execute(_READ_REQUEST, (one.claim.key,)).fetchone()
            if row is not None and row[1] != one.mail_id:
                return 0
            connection.execute(_REOPEN_REQUEST, (RequestState.RUNNING, one.claim.key))
        self._contents.drop((seq,), connection)
        connection.execute("DELETE FROM settled WHERE seq = ?", (seq,))
        payload = self._cipher.seal(one.octets, "mail", one.mail_id)
        self._accepted[seq] = (seq, one.mail_id, one.priority, one.deadline, payload)
        return seq

    def settle(self, one: Settlement, connection: Connection) -> None:
        """Drop a mail's content, and keep how it ended."""
        record = self._cipher.seal(one.octets, "settled mail", one.mail_id)
        keeps_request = bool(one.request_ends)
        row = (one.seq, one.mail_id, keeps_request, one.ends, one.request, record)
        self._settled_rows[one.seq] = row
        if one.content is not None:
            self._kept[one.seq] = one.mail_id, one.content
        if one.request is not None:
            state = RequestState.SETTLED if keeps_request else RequestState.FREE
            connection.execute(_SETTLE_REQUEST, (state, one.request_ends, one.request, one.mail_id))

    def forget(self, now: float, connection: Connection) -> bool:
        """Forget settled mails past their time, or beyond the most there may be; returns whether there may be more."""
        self.write_out(connection)
        self._contents.forget(now, connection)
        rows: list[tuple[int, bytes | None]] = []
        for kept, most in ((False, self._most), (True, self._most_requests)):
            ended = "SELECT seq, request FROM settled WHERE kept = ? AND ends <= ? LIMIT ?"
            rows += connection.execute(ended, (kept, now, _FREE_MOST)).fetchall()
            [count] = connection.execute("SELECT count(*) FROM settled WHERE kept = ?", (kept,)).fetchone()
            if count > most:
                oldest = "SELECT seq, request FROM settled WHERE kept = ? ORDER BY ends LIMIT ?"
                rows += connection.execute(oldest, (kept, min(count - most, _FREE_MOST))).fetchall()
        connection.executemany("DELETE FROM settled WHERE seq = ?", [(seq,) for seq, _ in rows])
        self._contents.drop([seq for seq, _ in rows], connection)
        requests = [(key, seq) for seq, key in rows if key is not None]
        connection.executemany("DELETE FROM request WHERE key = ? AND seq = ?", requests)
        return len(rows) >= _FREE_MOST

    def write_out(self, connection: Connection) -> None:
        """Write the mails that were accepted or have settled in this transaction.

        Each statement gives the interpreter to the loop and waits to have it back, so there is one for many mails.
        """
        accepted, self._accepted = self._accepted, {}
        settled, self._settled_rows = self._settled_rows, {}
        kept, self._kept = self._kept, {}
        for seq, (mail_id, content) in kept.items():
            payload = accepted[seq][-1] if seq in accepted else None
            self._contents.keep(seq, mail_id, content, payload, connection)
        _insert(connection, "INSERT INTO mail VALUES", [row for seq, row in accepted.items() if seq not in settled])
        _insert(connection, "INSERT OR REPLACE INTO settled VALUES", list(settled.values()))
        ended = [seq for seq in settled if seq not in accepted]
        for seqs in _parts(ended):
            places = ", ".join("?" * len(seqs))
            for table in ("mail", "progress"):
                connection.execute(f"DELETE FROM {table} WHERE seq IN ({places})", seqs)  # noqa: S608  no value in it

    def take_back(self) -> None:
        """Forget what was not written, since the transaction is taken back."""
        self._accepted, self._settled_rows, self._kept = {}, {}, {}

    # Looks.

    def get(self, mail_id: str, open_seq: int | None, connection: Connection) -> tuple[Mail, float] | None:
        """Return a mail and when it is forgotten: one that has settled, or an open one by its `seq`."""
        self.write_out(connection)
        if open_seq is not None:
            entry = self.entry(connection, open_seq)
            return None if entry is None else (entry.mail, float("inf"))
        row = connection.execute("SELECT record FROM settled WHERE id = ?", (mail_id,)).fetchone()
        if row is None:
            return None
        mail, forgotten, _, _ = codec.decode_settled(self._cipher.open(row[0], "settled mail", mail_id))
        return mail, forgotten

    def retryable(self, mail_id: str, now: float, connection: Connection) -> Entry | None:
        """Return a settled mail with its content, where that is kept."""
        self.write_out(connection)
        found = self._contents.read(mail_id, now, connection)
        return None if found is None else found[1]

    def find(self, key: bytes, now: float, connection: Connection) -> Earlier | Running | None:
        """Return the mail of a request id."""
        row = connection.execute(_READ_REQUEST, (key,)).fetchone()
        if row is None or row[0] == RequestState.ORPHANED:
            return None
        state, mail_id, seq, _, _ = row
        if state == RequestState.RUNNING:
            return Running(mail_id)
        settled = self._settled(connection, seq, mail_id)
        return None if settled is None or max(settled[1:3]) <= now else Earlier(settled[0])

    def settled_slice(self, after: int, most: int, connection: Connection) -> tuple[list[tuple[Mail, float]], int]:
        """Return mails that have settled, and when each is forgotten, from behind a `seq`; and the last `seq` of them.

        It is 0 where there are no more. A mail that can't be read, as without its key, is left out.
        """
        self.write_out(connection)
        read = "SELECT seq, id, record FROM settled WHERE seq > ? ORDER BY seq LIMIT ?"
        rows, found = connection.execute(read, (after, most)).fetchall(), []
        for _, mail_id, record in rows:
            with suppress(StoreError, ValueError):
                found.append(codec.decode_settled(self._cipher.open(record, "settled mail", mail_id))[:2])
        return found, rows[-1][0] if len(rows) == most else 0

    def entries(self, seqs: Sequence[int], connection: Connection) -> tuple[list[Entry], list[str]]:
        """Return accepted mails by their `seq`, and a line for each that can't be read, which stays in the file."""
        entries, faults = [], []
        for seq in seqs:
            try:
                entry = self.entry(connection, seq)
            except (StoreError, ValueError) as error:
                faults.append(str(error))
            else:
                entries += [] if entry is None else [entry]
        return entries, faults

    def entry(self, connection: Connection, seq: int) -> Entry | None:
        """Return one accepted mail with its progress. Raises StoreError."""
        self.write_out(connection)
        row = connection.execute("SELECT id, payload FROM mail WHERE seq = ?", (seq,)).fetchone()
        if row is None:
            return None
        mail_id, payload = row
        entry = codec.decode_entry(self._cipher.open(payload, "mail", mail_id))
        noted = connection.execute("SELECT progress FROM progress WHERE seq = ?", (seq,)).fetchone()
        if noted is None:
            return entry
        return replace(entry, progress=codec.decode_progress(self._cipher.open(noted[0], "progress", mail_id)))

    def _keep_request(self, connection: Connection, claim: Claim) -> None:
        row = (claim.key, RequestState.RUNNING, claim.mail_id, claim.seq, claim.fingerprint, claim.ends)
        connection.execute(_INSERT_REQUEST, row)

    def _look(self, connection: Connection, claim: Claim) -> Earlier | Running | Conflict | TakenOver | None:
        """Return what came before under a request id; None where nothing counts, or the claim is this very mail's."""
        row = connection.execute(_READ_REQUEST, (claim.key,)).fetchone()
        if row is None:
            return None
        state, mail_id, seq, fingerprint, ends = row
        if state == RequestState.FREE or (state != RequestState.RUNNING and ends <= claim.now):
            return None
        if fingerprint != claim.fingerprint:
            return Conflict()
        if state == RequestState.RUNNING:
            return None if mail_id == claim.mail_id else Running(mail_id)
        if state == RequestState.ORPHANED:
            return TakenOver(mail_id)
        settled = self._settled(connection, seq, mail_id)
        return None if settled is None else Earlier(settled[0])

    def _settled(self, connection: Connection, seq: int, mail_id: str) -> tuple[Mail, float, float, bytes] | None:
        self.write_out(connection)
        row = connection.execute("SELECT record FROM settled WHERE seq = ?", (seq,)).fetchone()
        if row is None:
            return None
        return codec.decode_settled(self._cipher.open(row[0], "settled mail", mail_id))


def _insert(connection: Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    for some in _parts(rows):
        row = f"({', '.join('?' * len(some[0]))})"
        connection.execute(f"{statement} {', '.join([row] * len(some))}", [value for one in some for value in one])


def _parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the values in parts, none of which holds more than SQLite takes in one statement."""
    for start in range(0, len(values), _TOGETHER):
        yield values[start : start + _TOGETHER]
