"""Reads and writes the rows of mails and request ids, in the writer thread and within its transactions."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from sqlite3 import Connection
from sys import maxsize

from otpmail.errors import StoreError
from otpmail.model import Mail, Sending
from otpmail.store import codec
from otpmail.store.base import Accepted, Conflict, Earlier, Entry, Issued, Running, TakenOver
from otpmail.store.cipher import Cipher
from otpmail.store.sqlite.bulk import delete, insert
from otpmail.store.sqlite.changes import Acceptance, Claim, Content, RequestState, Settlement
from otpmail.store.sqlite.contents import Contents
from otpmail.store.sqlite.requests import Requests, Row

Answer = Accepted | Earlier | Running | Conflict

_FREE_MOST = 512  # settled mails that are forgotten at a time

_ACCEPTED = Accepted()

_INSERT_PROGRESS = "INSERT OR REPLACE INTO progress VALUES (?, ?)"


class Rows:
    """The rows of one file, whose content `cipher` encrypts. It remembers `most` settled mails, and `most_requests`.

    The contents of those that may be retried take `most_octets`.
    """

    def __init__(self, cipher: Cipher, *, most: int, most_requests: int, most_octets: int = maxsize) -> None:
        self._cipher = cipher
        self._contents = Contents(cipher, most_octets=most_octets)
        self._most = most
        self._most_requests = most_requests
        self._requests = Requests()
        self._accepted: dict[int, tuple[int, str, int, float, bytes]] = {}
        self._settled_rows: dict[int, tuple[object, ...]] = {}
        self._kept: dict[int, tuple[str, Content]] = {}
        self._counts: dict[bool, int] = {}  # of settled mails, by whether a request id finds them

    def __repr__(self) -> str:
        return f"<Rows {self._cipher!r}>"

    def read_ahead(self, connection: Connection, keys: Iterable[bytes]) -> None:
        """Read the request ids that this transaction asks for."""
        self._requests.read_ahead(connection, keys)

    def accept(self, acceptances: Sequence[Acceptance], connection: Connection) -> list[Answer]:
        """Keep mails with their request ids; one whose request id came before is not kept.

        An earlier mail that can't be read counts as running: `get` raises for it, and the others are kept.
        """
        return [self._accept_or_name(connection, one) for one in acceptances]

    def _accept_or_name(self, connection: Connection, one: Acceptance) -> Answer:
        try:
            return self._accept(connection, one)
        except StoreError:
            row = None if one.claim is None else self._requests.get(connection, one.claim.key)
            if row is None:
                raise
            return Running(row.mail_id)

    def _accept(self, connection: Connection, one: Acceptance) -> Answer:
        if one.claim is not None:
            earlier = self._look(connection, one.claim)
            if earlier is not None and not isinstance(earlier, TakenOver):
                return earlier
            self._keep_request(one.claim)
        payload = self._cipher.seal(one.octets, "mail", one.mail_id)
        self._accepted[one.seq] = (one.seq, one.mail_id, one.priority, one.deadline, payload)
        return _ACCEPTED

    def issue(
        self, one: Acceptance, challenge_id: bytes, decide: Callable[[Connection], Sending], connection: Connection
    ) -> Issued:
        """Keep the mail of a challenge if `decide` says that it is the one to be mailed, and what it has changed."""
        earlier = None if one.claim is None else self._look(connection, one.claim)
        if earlier is not None and not isinstance(earlier, TakenOver):
            return Issued(None, earlier)
        sending = decide(connection)
        return Issued(sending, self._accept(connection, one) if sending.challenge.id == challenge_id else None)

    def claim(self, claim: Claim, connection: Connection) -> Answer | TakenOver:
        """Keep a request id for a mail, unless it came before."""
        earlier = self._look(connection, claim)
        if earlier is None:
            self._keep_request(claim)
            return _ACCEPTED
        if isinstance(earlier, TakenOver):
            self._keep_request(replace(claim, mail_id=earlier.mail_id))
        return earlier

    def release(self, key: bytes, mail_id: str, connection: Connection) -> None:
        """Free a request id, if it was claimed for that mail and no other."""
        self._requests.release(connection, key, mail_id)

    def release_call(self, key: bytes, seq: int, connection: Connection) -> None:
        """Free a request id, if the call with that `seq` has claimed it."""
        self._requests.release_call(connection, key, seq)

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
            row = self._requests.get(connection, one.claim.key)
            if row is not None and row.mail_id != one.mail_id:
                return 0
            if row is not None:
                self._requests.keep(one.claim.key, row._replace(state=RequestState.RUNNING))
        self._contents.drop((seq,), connection)
        connection.execute("DELETE FROM settled WHERE seq = ?", (seq,))
        self._counts.clear()
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
            self._requests.settle(connection, one.request, one.mail_id, state, one.request_ends)

    def forget(self, now: float, connection: Connection) -> bool:
        """Forget settled mails past their time, or beyond the most there may be; returns whether there may be more."""
        self.write_out(connection)
        self._contents.forget(now, connection)
        rows: list[tuple[int, bytes | None]] = []
        for kept, most in ((False, self._most), (True, self._most_requests)):
            ended = "SELECT seq, request FROM settled WHERE kept = ? AND ends <= ? LIMIT ?"
            found = connection.execute(ended, (kept, now, _FREE_MOST)).fetchall()
            beyond = self._count(connection, kept=kept) - len(found) - most
            if beyond > 0:
                oldest = "SELECT seq, request FROM settled WHERE kept = ? AND ends > ? ORDER BY ends LIMIT ?"
                found += connection.execute(oldest, (kept, now, min(beyond, _FREE_MOST))).fetchall()
            self._counts[kept] -= len(found)
            rows += found
        seqs = [seq for seq, _ in rows]
        delete(connection, "settled", "seq", seqs)
        self._contents.drop(seqs, connection)
        self._requests.forget(connection, [(key, seq) for seq, key in rows if key is not None])
        return len(rows) >= _FREE_MOST

    def write_out(self, connection: Connection) -> None:
        """Write the mails that were accepted or have settled in this transaction, and their request ids."""
        accepted, self._accepted = self._accepted, {}
        settled, self._settled_rows = self._settled_rows, {}
        kept, self._kept = self._kept, {}
        for seq, (mail_id, content) in kept.items():
            payload = accepted[seq][-1] if seq in accepted else None
            self._contents.keep(seq, mail_id, content, payload, connection)
        insert(connection, "INSERT INTO mail VALUES", [row for seq, row in accepted.items() if seq not in settled])
        insert(connection, "INSERT OR REPLACE INTO settled VALUES", list(settled.values()))
        for row in settled.values():
            if (has_request := bool(row[2])) in self._counts:
                self._counts[has_request] += 1
        ended = [seq for seq in settled if seq not in accepted]
        for table in ("mail", "progress"):
            delete(connection, table, "seq", ended)
        self._requests.write_out(connection)

    def end(self, *, committed: bool) -> None:
        """Forget what this transaction has read or has not written, since it has ended."""
        self._accepted, self._settled_rows, self._kept = {}, {}, {}
        self._requests.end()
        if not committed:
            self._counts.clear()

    def _count(self, connection: Connection, *, kept: bool) -> int:
        """Return how many settled mails there are; they are counted once, since 200,000 take SQLite 10 ms."""
        if kept not in self._counts:
            counted = "SELECT count(*) FROM settled WHERE kept = ?"
            [self._counts[kept]] = connection.execute(counted, (kept,)).fetchone()
        return self._counts[kept]

    # Looks.

    def get(self, mail_id: str, open_seq: int | None, connection: Connection) -> tuple[Mail, float] | None:
        """Return a mail and when it is forgotten: one that has settled, or an open one by its `seq`."""
        self.write_out(connection)
        if open_seq is not None:
            entry = self.entry(connection, open_seq)
            return None if entry is None else (entry.mail, inf)
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
        row = self._requests.get(connection, key)
        if row is None or row.state == RequestState.ORPHANED:
            return None
        if row.state == RequestState.RUNNING:
            return Running(row.mail_id)
        settled = self._settled(connection, row.seq, row.mail_id)
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

    def _keep_request(self, claim: Claim) -> None:
        row = Row(RequestState.RUNNING, claim.mail_id, claim.seq, claim.fingerprints[0], claim.ends)
        self._requests.keep(claim.key, row)

    def _look(self, connection: Connection, claim: Claim) -> Earlier | Running | Conflict | TakenOver | None:
        """Return what came before under a request id; None where nothing counts, or the claim is this very mail's."""
        row = self._requests.get(connection, claim.key)
        if row is None or row.state == RequestState.FREE:
            return None
        is_running = row.state == RequestState.RUNNING
        if not is_running and row.ends <= claim.now:
            return None
        if row.fingerprint not in claim.fingerprints:
            if not self._settled(connection, row.seq, row.mail_id):  # raises without its key: it may be the same then
                self.entry(connection, row.seq)
            return Conflict()
        if is_running:
            return None if row.mail_id == claim.mail_id else Running(row.mail_id)
        if row.state == RequestState.ORPHANED:
            return TakenOver(row.mail_id)
        settled = self._settled(connection, row.seq, row.mail_id)
        return None if settled is None else Earlier(settled[0])

    def _settled(self, connection: Connection, seq: int, mail_id: str) -> tuple[Mail, float, float, bytes] | None:
        self.write_out(connection)
        row = connection.execute("SELECT record FROM settled WHERE seq = ?", (seq,)).fetchone()
        if row is None:
            return None
        return codec.decode_settled(self._cipher.open(row[0], "settled mail", mail_id))
