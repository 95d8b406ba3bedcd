"""Reads and writes the rows of mails and request ids, in the writer thread and within its transactions."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from sqlite3 import Connection

from otpmail.errors import StoreError
from otpmail.model import IssuedCode, Mail, Sending
from otpmail.store import codec
from otpmail.store.base import Accepted, Conflict, Earlier, Entry, Issued, Running, TakenOver
from otpmail.store.cipher import Cipher
from otpmail.store.retention import Retention
from otpmail.store.sqlite.bulk import delete, insert
from otpmail.store.sqlite.changes import Acceptance, Claim, RequestState, Settlement
from otpmail.store.sqlite.contents import Contents, Kept
from otpmail.store.sqlite.open_mails import read_open, read_several
from otpmail.store.sqlite.requests import End, Requests, Row, request_key
from otpmail.store.sqlite.settled import Settled, SettledMail

Answer = Accepted | Earlier | Running | Conflict

_ACCEPTED = Accepted()

_REWIND_SECONDS = 600.0  # after which old rows are looked at again that could not be forgotten or merged
_INSERT_PROGRESS = "INSERT OR REPLACE INTO progress VALUES (?, ?)"


class Rows:
    """The rows of one file, whose content `cipher` encrypts, within `retention`."""

    def __init__(self, cipher: Cipher, retention: Retention) -> None:
        self._cipher = cipher
        self._contents = Contents(cipher, most_octets=retention.octets)
        self._settled = Settled(cipher, most=retention.count, most_requests=retention.request_count)
        self._requests = Requests()
        self._accepted: dict[int, tuple[int, str, int, float, bytes]] = {}
        self._ended: list[int] = []
        self._kept: dict[int, Kept] = {}
        self._rewound = 0.0

    def __repr__(self) -> str:
        return f"<Rows {self._cipher!r}>"

    def load(self, connection: Connection) -> None:
        """Read what is known of the file without reading it again. Called once, before all else."""
        self._requests.load(connection)

    def read_ahead(self, connection: Connection, keys: Iterable[int]) -> None:
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
            self._keep_request(one.claim, is_claim=False)
        payload = self._cipher.seal(one.octets, "mail", one.mail_id)
        self._accepted[one.seq] = (one.seq, one.mail_id, one.priority, one.deadline, payload)
        return _ACCEPTED

    def issue(
        self, one: Acceptance, code: IssuedCode, decide: Callable[[Connection], Sending], connection: Connection
    ) -> Issued:
        """Keep the mail of a code if `decide` says that it is the one to be sent, and what it has changed."""
        earlier = None if one.claim is None else self._look(connection, one.claim)
        if earlier is not None and not isinstance(earlier, TakenOver):
            return Issued(None, earlier)
        sending = decide(connection)
        return Issued(sending, self._accept(connection, one) if sending.is_that_of(code) else None)

    def claim(self, claim: Claim, connection: Connection) -> Answer | TakenOver:
        """Keep a request id for a mail, unless it came before."""
        earlier = self._look(connection, claim)
        if earlier is None:
            self._keep_request(claim, is_claim=True)
            return _ACCEPTED
        if isinstance(earlier, TakenOver):
            self._keep_request(replace(claim, mail_id=earlier.mail_id), is_claim=True)
        return earlier

    def release(self, key: int, mail_id: str, connection: Connection, *, is_taken_over: bool) -> None:
        """Free a request id, if it was claimed for that mail and no other (`Requests.release`)."""
        self._requests.release(connection, key, mail_id, is_taken_over=is_taken_over)

    def release_call(self, claim: Claim, connection: Connection) -> None:
        """Free a request id, if this very claim has it."""
        self._requests.release_call(connection, claim.key, claim.seq, claim.mail_id)

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
        found = self._find_content(one.mail_id, now, connection)
        if found is None or found[1].mail.settle_time != settle_time:
            return 0
        place = found[0]
        if one.claim is not None:
            row = self._requests.get(connection, one.claim.key)
            if row is not None and row.place != place:
                return 0
            if row is not None:
                running = row._replace(state=RequestState.RUNNING, mail_id=one.mail_id, seq=one.seq, place=None)
                self._requests.keep(one.claim.key, running)
        self._contents.drop((place,), connection)
        self._settled.remove(connection, place)
        payload = self._cipher.seal(one.octets, "mail", one.mail_id)
        self._accepted[one.seq] = (one.seq, one.mail_id, one.priority, one.deadline, payload)
        return one.seq

    def settle(self, one: Settlement, connection: Connection) -> None:
        """Drop a mail's content, and keep how it ended."""
        keeps_request = bool(one.request_ends)
        ends = max(one.request_ends, one.forgotten) if keeps_request else 0.0
        mail = SettledMail(one.mail_id, one.caller, one.octets, one.forgotten, ends, one.content is not None)
        place = self._settled.add(connection, mail)
        self._ended.append(one.seq)
        if one.content is not None:
            self._kept[one.seq] = place, one.mail_id, one.content
        if one.request is not None:
            state, ends = (
                (RequestState.SETTLED, one.request_ends) if keeps_request else (RequestState.FREE, one.forgotten)
            )
            self._requests.settle(connection, one.request, one.seq, End(state, ends, place))

    def forget(self, now: float, connection: Connection) -> bool:
        """Forget settled mails past their time, or beyond the most there may be; returns whether there may be more."""
        self.write_out(connection)
        if now - self._rewound >= _REWIND_SECONDS:
            self._rewound = now
            self._requests.rewind()
            self._settled.rewind()
        more = self._settled.forget(connection, now, partial(self._is_named, connection))
        self._contents.forget(now, connection)
        more |= self._settled.merge(connection)
        self._follow_moved(connection)
        more |= self._requests.forget(connection, now, self._settled.firsts(connection))
        return more

    def _is_named(self, connection: Connection, mail: Mail, place: int) -> bool:
        row = self._requests.get(connection, request_key(mail.caller, mail.request_id))
        return row is not None and row.place == place

    def _follow_moved(self, connection: Connection) -> None:
        """Let request ids name the new places of mails that were moved."""
        for moved in self._settled.moved:
            key = request_key(moved.caller, moved.request_id)
            row = self._requests.get(connection, key) if moved.request_id else None
            if row is not None and row.place == moved.place:
                self._requests.keep(key, row._replace(seq=-moved.new, place=moved.new))

    def erase(self, person: bytes, after: int, connection: Connection) -> tuple[int, int]:
        """Erase a person from settled mails (`Settled.erase`), with their contents; returns from how many too."""
        self.write_out(connection)
        places, last = self._settled.erase(connection, person, after)
        self._contents.drop(places, connection)
        return len(places), last

    def write_out(self, connection: Connection) -> None:
        """Write the mails that were accepted or have settled in this transaction, and their request ids."""
        accepted, self._accepted = self._accepted, {}
        ended, self._ended = self._ended, []
        kept, self._kept = self._kept, {}
        for seq, one in kept.items():
            self._contents.keep(seq, one, accepted[seq][-1] if seq in accepted else None, connection)
        gone = [seq for seq in ended if accepted.pop(seq, None) is None]
        insert(connection, "INSERT INTO mail", list(accepted.values()))
        delete(connection, "mail", "seq", gone)
        self._settled.write_added(connection)
        self._requests.write_changed(connection)

    def end(self, *, committed: bool) -> None:
        """Forget what this transaction has read or has not written, since it has ended."""
        self._accepted, self._ended, self._kept = {}, [], {}
        self._settled.end(committed=committed)
        self._requests.end(committed=committed)

    # Looks.

    def get(self, mail_id: str, open_seq: int | None, connection: Connection) -> tuple[Mail, float] | None:
        """Return a mail and when it is forgotten: one that has settled, or an open one by its `seq`."""
        self.write_out(connection)
        if open_seq is not None:
            entry = self.entry(connection, open_seq)
            return None if entry is None else (entry.mail, inf)
        octets = self._settled.get(connection, self._settled.place_of(connection, mail_id))
        if octets is None:
            return None
        mail, forgotten, _, _ = codec.decode_settled(octets)
        return mail, forgotten

    def retryable(self, mail_id: str, now: float, connection: Connection) -> Entry | None:
        """Return a settled mail with its content, where that is kept."""
        self.write_out(connection)
        found = self._find_content(mail_id, now, connection)
        return None if found is None else found[1]

    def _find_content(self, mail_id: str, now: float, connection: Connection) -> tuple[int, Entry] | None:
        place = self._settled.place_of(connection, mail_id)
        octets = self._settled.get(connection, place)
        entry = None if octets is None else self._contents.read(place, codec.decode_settled(octets)[0], now, connection)
        return None if entry is None else (place, entry)

    def find(self, key: int, now: float, connection: Connection) -> Earlier | Running | None:
        """Return the mail of a request id."""
        row = self._requests.get(connection, key)
        if row is None or row.state == RequestState.ORPHANED:
            return None
        if row.state == RequestState.RUNNING:
            return Running(row.mail_id)
        settled = self._read_settled(connection, key, row)
        return None if settled is None or max(settled[1:3]) <= now else Earlier(settled[0])

    def settled_slice(self, after: int, most: int, connection: Connection) -> tuple[list[tuple[Mail, float]], int]:
        """Return about `most` settled mails behind a place, and when each is forgotten; and the last place of them.

        It is 0 where there are no more. A mail that can't be read, as without its key, is left out.
        """
        self.write_out(connection)
        mails, last = self._settled.slice(connection, after, most)
        return [codec.decode_settled(octets)[:2] for octets in mails], last

    def entries(self, seqs: Sequence[int], connection: Connection) -> tuple[list[Entry], list[str]]:
        """Return accepted mails by their `seq`, and a line for each that can't be read, which stays in the file."""
        self.write_out(connection)
        return read_several(connection, self._cipher, seqs)

    def entry(self, connection: Connection, seq: int) -> Entry | None:
        """Return one accepted mail with its progress. Raises StoreError."""
        self.write_out(connection)
        return read_open(connection, self._cipher, seq)

    def _keep_request(self, claim: Claim, *, is_claim: bool) -> None:
        fingerprint = claim.fingerprints[0]
        row = Row(RequestState.RUNNING, claim.mail_id, claim.seq, fingerprint, claim.ends, is_claim=is_claim)
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
            if not self._read_settled(connection, claim.key, row):  # raises without its key: it may be the same then
                self.entry(connection, row.seq)
            return Conflict()
        if is_running:
            return None if row.mail_id == claim.mail_id else Running(row.mail_id)
        if row.state == RequestState.ORPHANED:
            return TakenOver(row.mail_id)
        settled = self._read_settled(connection, claim.key, row)
        return None if settled is None else Earlier(settled[0])

    def _read_settled(self, connection: Connection, key: int, row: Row) -> tuple[Mail, float, float, bytes] | None:
        """Return the settled mail of a request id; None where it was forgotten, so that another may have its place."""
        octets = None if row.place is None else self._settled.get(connection, row.place)
        if octets is None:
            return None
        settled = codec.decode_settled(octets)
        mail = settled[0]
        return settled if request_key(mail.caller, mail.request_id) == key else None
