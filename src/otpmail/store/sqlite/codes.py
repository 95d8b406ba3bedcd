"""Code records in a SQLite file: a rule runs in the writer thread, between reading a record and writing it."""

from asyncio import CancelledError
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from sqlite3 import Connection
from typing import TypeVar

from otpmail.code_record import CodeRecord, Lane, Slot
from otpmail.model import Challenge, Check, IssuedCode, Reached, Sending
from otpmail.store import record_codec
from otpmail.store.challenges import ANY, NO_SCOPE, Attempt, Guess, Quota, Rules, Send
from otpmail.store.counts_codec import NO_COUNTS, counts_end
from otpmail.store.digests import Digests
from otpmail.store.earlier_records import READ_SECONDS, decode_earlier
from otpmail.store.records import Others, Rule, RuledRecords
from otpmail.store.sqlite.writer import Writer

T = TypeVar("T")

_NO_RECORD = record_codec.encode_record(
    CodeRecord((Slot(bytes(8), challenge=Challenge(bytes(16), "k1", 0.0, 1)),), (Lane(sends=(1,)),))
)
_NO_KEY = b""
_COUNTS = b"n"  # before the name of a limit's counts, which lie beside the records
_SLICE = 500

_READ = "SELECT record FROM code WHERE key = ?"
_WRITE = "INSERT OR REPLACE INTO code VALUES (?, ?, ?)"
_DELETE = "DELETE FROM code WHERE key = ?"
_SWEEP = "SELECT key, ends FROM code WHERE key > ? ORDER BY key LIMIT ?"


class SqliteChallengeStore(RuledRecords):
    """Code records by key (see `store.base.ChallengeStore`). `octets` of memory they take none."""

    octets = 0

    checks_at_once = False

    def __init__(self, clock: Callable[[], float], rules: Rules, writer: Writer, digests: Digests) -> None:
        super().__init__(rules)
        self._digests = digests
        self.now = clock
        self._read_earlier_until: float | None = None
        self._writer = writer

    def __repr__(self) -> str:
        return f"<SqliteChallengeStore {self._writer!r}>"

    async def send(self, send: Send) -> Sending:
        """Decide which challenge to mail now; a call that is cancelled leaves nothing counted."""
        decided: list[Sending] = []
        try:
            return await self._writer.ask(partial(self._send, send, decided))
        except CancelledError:  # the commit may be under way; what is noted comes behind it
            self._writer.note(partial(self._leave, send.key, decided))
            raise

    async def unsend(self, key: bytes, sending: Sending) -> None:
        """Take a sending back, and what it has counted for."""
        await self._writer.ask(partial(self._unsend, key, sending))

    def count_at_once(self, quotas: Sequence[Quota]) -> None:
        """Count nothing: the store is waited for."""

    async def count(self, quotas: Sequence[Quota]) -> tuple[float, tuple[Reached, ...]]:
        """Count a mail for limits over many addresses."""
        work = partial(self._admitted, quotas=quotas, now=self.now())
        return await self._writer.ask(partial(self._with_counts, work))

    async def uncount(self, quotas: Sequence[Quota], when: float) -> None:
        """Take a mail back."""
        work = partial(self._taken_back, quotas=quotas, when=when)
        await self._writer.ask(partial(self._with_counts, work))

    async def check(self, key: bytes, now: float, guess: Guess, attempt: Attempt = ANY) -> Check:
        """Count an attempt, compare, and use the code up if it is right."""
        if attempt.quotas or attempt.mailbox:
            return await self._writer.ask(partial(self._check, key, now, guess, attempt))
        rule = partial((attempt.rules or self._rules).check, now=now, guess=guess, attempt=attempt)
        return await self._writer.ask(partial(self._update, key, rule, earlier=(attempt.earlier, attempt.scope)))

    async def void(self, key: bytes, scope: bytes, challenge_id: bytes | None, earlier: bytes = b"") -> None:
        """End the live challenges of a scope unused."""
        rule = partial(self._rules.void, scope=scope, challenge_id=challenge_id)
        await self._writer.ask(partial(self._update, key, rule, earlier=(earlier, scope)))

    async def forget(self, key: bytes, earlier: bytes = b"", mailbox: bytes = b"") -> None:
        """Drop the record of an address, and its mails from that of its mailbox."""
        rule = partial(self._forgotten, mailbox=mailbox)
        await self._writer.ask(partial(self._with_others, key, rule, earlier=(earlier, NO_SCOPE), with_room=False))

    @property
    def reads_earlier(self) -> bool:
        """Whether records of an earlier version may be there: for a day after the first question."""
        now = self.now()
        if self._read_earlier_until is None:
            self._read_earlier_until = now + READ_SECONDS
        return now < self._read_earlier_until

    async def update(self, key: bytes, rule: Rule[T]) -> T:
        """Replace the record by what `rule` makes of it, in one step, and return what else the rule returns.

        `rule` is pure, since it runs in the writer thread, and again where its commit fails over another change. When
        it raises, the record stays unchanged. Raises Unavailable while the store can't be written.
        """
        return await self._writer.ask(partial(self._update, key, rule))

    def decide(self, send: Send, code: IssuedCode, connection: Connection) -> Sending:
        """Decide which challenge to mail, within another change; nothing stays unless it is for the mail of `code`."""

        def rule(others: Others, record: CodeRecord | None) -> tuple[CodeRecord | None, Sending]:
            """Change the record where the decision is for that mail."""
            tried = others._replace(keep_counts=_keep_nothing, keep_record=_keep_nothing)
            _, sending = self._counted(tried, record, send)  # raises where the mail is refused
            return self._counted(others, record, send) if sending.is_that_of(code) else (record, sending)

        return self._with_others(send.key, rule, connection, earlier=(send.earlier, send.scope))

    async def sweep(self) -> int:
        """Drop the records that have ended, a slice at a time, and return how many those were."""
        dropped, last = 0, _NO_KEY
        while True:
            found, last, count = await self._writer.ask(partial(_sweep, last, self.now()))
            dropped += count
            if found < _SLICE:
                return dropped

    def _send(self, send: Send, decided: list[Sending], connection: Connection) -> Sending:
        """Decide, and put what was decided last into `decided`: a commit that fails over another change runs again."""
        earlier = (send.earlier, send.scope)
        decided.clear()
        if send.quotas or send.mailbox:
            sending = self._with_others(send.key, partial(self._counted, send=send), connection, earlier=earlier)
        else:
            rule = partial((send.rules or self._rules).send, send=send)
            sending = self._update(send.key, rule, connection, earlier=earlier)
        decided.append(sending)
        return sending

    def _leave(self, key: bytes, decided: list[Sending], connection: Connection) -> None:
        """Take back what was decided for a call that has been cancelled, if anything was."""
        for sending in decided:
            self._unsend(key, sending, connection)

    def _check(self, key: bytes, now: float, guess: Guess, attempt: Attempt, connection: Connection) -> Check:
        if attempt.mailbox:
            attempt = self._with_mails_at(attempt, partial(self._record, connection, with_room=False), now)
        rule = partial(self._guessed, now=now, guess=guess, attempt=attempt)
        earlier = (attempt.earlier, attempt.scope)
        # A code is checked on a full disk too.
        return self._with_others(key, rule, connection, earlier=earlier, with_room=False)

    def _unsend(self, key: bytes, sending: Sending, connection: Connection) -> None:
        self._with_others(key, partial(self._uncounted, sending=sending), connection, with_room=False)

    def _with_others(
        self,
        key: bytes,
        rule: Callable[[Others, CodeRecord | None], tuple[CodeRecord | None, T]],
        connection: Connection,
        *,
        earlier: tuple[bytes, bytes] = (b"", b""),
        with_room: bool = True,
    ) -> T:
        """Apply a rule that counts elsewhere too. Nothing is written before the rule has refused nothing."""
        counts: dict[bytes, bytes] = {}
        records: dict[bytes, CodeRecord | None] = {}
        read = partial(self._read_counts, connection, with_room=with_room)
        record = partial(self._record, connection, with_room=with_room)
        others = Others(read, counts.__setitem__, record, records.__setitem__)
        result = self._update(key, partial(rule, others), connection, earlier=earlier)
        self._write_counts(connection, counts)
        for other, after in records.items():
            self._update(other, partial(_replace, after=after), connection)
        return result

    def _with_counts(self, work: Callable[[Others], T], connection: Connection) -> T:
        """Do work on counts alone."""
        counts: dict[bytes, bytes] = {}
        read = partial(self._read_counts, connection, with_room=False)
        nothing: dict[bytes, CodeRecord | None] = {}
        result = work(Others(read, counts.__setitem__, nothing.get, nothing.__setitem__))
        self._write_counts(connection, counts)
        return result

    def _record(self, connection: Connection, key: bytes, *, with_room: bool) -> CodeRecord | None:
        """Return another record. `with_room`: raises Unavailable where it is missing, and there is no room for it."""
        for name in self._digests.record_names(key):
            kept: tuple[bytes] | None = connection.execute(_READ, (name,)).fetchone()
            if kept is not None:
                return record_codec.decode_record(kept[0])
        if with_room and self._writer.committer.is_full:
            raise self._writer.committer.unavailable()
        return None

    def _read_counts(self, connection: Connection, key: bytes, *, with_room: bool = True) -> bytes:
        """Return the octets of a limit's counts.

        `with_room`: raises Unavailable where it has none, and the file has no room for new ones.
        """
        for name in self._digests.record_names(key):
            kept: tuple[bytes] | None = connection.execute(_READ, (_COUNTS + name,)).fetchone()
            if kept is not None:
                return kept[0]
        committer = self._writer.committer
        if with_room and committer.is_full:
            raise committer.unavailable()
        return NO_COUNTS

    def _write_counts(self, connection: Connection, counts: Mapping[bytes, bytes]) -> None:
        """Keep the octets of counts by their keys, under the first of their names."""
        for key, octets in counts.items():
            name, *others = [_COUNTS + name for name in self._digests.record_names(key)]
            _drop(connection, others)
            if octets == NO_COUNTS:
                connection.execute(_DELETE, (name,))
            else:
                connection.execute(_WRITE, (name, counts_end(octets), octets))

    def _update(
        self, key: bytes, rule: Rule[T], connection: Connection, *, earlier: tuple[bytes, bytes] = (b"", b"")
    ) -> T:
        """Apply a rule. `earlier` is the key of a record that an earlier version may have kept, and its scope."""
        name, *others = self._digests.record_names(key)
        kept, (older, stale) = connection.execute(_READ, (name,)).fetchone(), _find(connection, others)
        kept = kept or older
        # A record is decoded, encoded and written in every case, so that the time does not tell whether there is one.
        before = record_codec.decode_record(_NO_RECORD if kept is None else kept[0])
        record = before if kept is not None else None
        if earlier[0]:
            found, names = _find(connection, self._digests.record_names(earlier[0]))
            stale += names
            if found is not None:
                record = self._rules.adopt(record, decode_earlier(found[0]), earlier[1])
        after, result = rule(record)  # before anything is written, since it may refuse
        octets = record_codec.encode_record(before if after is None else after)
        committer = self._writer.committer
        if after is not None and kept is None and committer.is_full:
            raise committer.unavailable()
        _drop(connection, stale)
        if after is not None:
            connection.execute(_WRITE, (name, record_codec.record_ends(octets), octets))
        elif kept is not None:
            connection.execute(_DELETE, (name,))
        else:
            connection.execute(_WRITE, (_NO_KEY, record_codec.record_ends(octets), octets))
        return result


def _keep_nothing(*_: object) -> None:
    """Take the place of a write, where a decision is tried."""


def _replace(_: CodeRecord | None, *, after: CodeRecord | None) -> tuple[CodeRecord | None, None]:
    return after, None


def _find(connection: Connection, names: Sequence[bytes]) -> tuple[tuple[bytes] | None, list[bytes]]:
    """Return the record that has one of these names, from before a key was replaced, and all of them that have one.

    All are looked for in every case, so that the time does not tell whether there is a record.
    """
    found: tuple[bytes] | None = None
    stale = []
    for name in names:
        kept = connection.execute(_READ, (name,)).fetchone()
        if kept is not None:
            stale.append(name)
            found = found or kept
    return found, stale


def _drop(connection: Connection, names: Iterable[bytes]) -> None:
    connection.executemany(_DELETE, [(name,) for name in names])


def _sweep(last: bytes, now: float, connection: Connection) -> tuple[int, bytes, int]:
    """Drop what has ended in the slice behind the key `last`; returns its length, its last key, and how many ended."""
    rows = connection.execute(_SWEEP, (last, _SLICE)).fetchall()
    ended = [(key,) for key, ends in rows if ends <= now]
    connection.executemany(_DELETE, ended)
    return len(rows), rows[-1][0] if rows else last, len(ended)
