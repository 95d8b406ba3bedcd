"""Request ids, guaranteed mails and how they settled, in a SQLite file; what this process alone needs is in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from sqlite3 import Connection
from typing import TypeVar

from otpmail.errors import FailedPrecondition, StoreEnded, StoreError
from otpmail.model import IssuedCode, Mail, Sending
from otpmail.store import codec
from otpmail.store.base import (
    Accepted,
    Conflict,
    Earlier,
    Entry,
    Issued,
    Left,
    Progress,
    Request,
    Running,
    TakenOver,
)
from otpmail.store.clock import Mark
from otpmail.store.digests import Digests
from otpmail.store.forgotten import Forgotten, Span, owner_of
from otpmail.store.memory.mails import MemoryMailStore
from otpmail.store.retention import Retention
from otpmail.store.sole import SoleOwner
from otpmail.store.sqlite.changes import Acceptance, Claim
from otpmail.store.sqlite.forgotten import read_forgotten, write_forgotten
from otpmail.store.sqlite.requests import request_key
from otpmail.store.sqlite.rows import Rows
from otpmail.store.sqlite.settlement import settlement_of
from otpmail.store.sqlite.stock import take_stock
from otpmail.store.sqlite.writer import Writer
from otpmail.store.wanted import Wanted, ever

_SLICE = 100  # mails that are read at a time
_FORGET_EVERY = 256  # settled mails
_CLAIM_OCTETS = 256  # of the file, for a request id

T = TypeVar("T")


class SqliteMailStore(SoleOwner):
    """Guaranteed mails, and every mail with a request id, in the file; the other ones as `MemoryMailStore` has them.

    Its whole state on the loop is `_open`, `_taken_over` and `_left`. `_open` has the `seq` of each open mail in the
    file, `_taken_over` those of them whose request id an earlier process had claimed. `_left` are mails of an earlier
    process until `left` yields them.
    """

    durable = True

    def __init__(
        self,
        clock: Callable[[], float],
        writer: Writer,
        rows: Rows,
        digests: Digests,
        *,
        retention: Retention,
    ) -> None:
        self.now = clock
        self._writer = writer
        self._rows = rows
        self._digests = digests
        self._retention = retention
        self._forgotten = Forgotten(digests.record_names)
        self._memory = MemoryMailStore(clock, retention=retention, forgotten=self._forgotten)
        self._open: dict[str, int] = {}
        self._taken_over: set[str] = set()
        self._left: list[tuple[int, Left]] = []  # the first one last
        self._first = 1  # the `seq` of this process's first mail
        self._seqs = count(1)
        self._settled = 0
        self._was_killed = False  # whether the process before ended without releasing its mails

    def __repr__(self) -> str:
        return f"<SqliteMailStore {len(self._open)} open, {self._memory!r}>"

    @property
    def octets(self) -> int:
        """The memory that mails take here, with persons who are to be forgotten."""
        return self._memory.octets

    def begin(self, connection: Connection) -> Mark:
        """Read what an earlier process left; returns the last mark of its clock. Called before all else."""
        self._left, self._first, mark, self._was_killed = take_stock(connection)
        self._rows.load(connection)
        self._memory.load(read_forgotten(connection))
        self._open = {left.mail_id: seq for seq, left in self._left}
        self._seqs = count(self._first)
        return mark

    async def accept(self, entries: Sequence[Entry]) -> list[Accepted | Earlier | Running | Conflict]:
        """Keep mails, with their content and request ids, in one commit; durable on return."""
        kept = [self._acceptance(entry) for entry in entries]
        octets = sum([len(one.octets) for one in kept])
        keys = [one.claim.key for one in kept if one.claim is not None]
        answers = await self._ask(partial(self._rows.accept, kept), octets, keys)
        for one, answer in zip(kept, answers, strict=True):
            if isinstance(answer, Accepted):
                self._open[one.mail_id] = one.seq
        return answers

    async def issue(self, entry: Entry, code: IssuedCode, decide: Callable[[Connection], Sending]) -> Issued:
        """Keep the mail of a code in one commit with what `decide` changes, if that is for the same mail."""
        one = self._acceptance(entry)
        keys = () if one.claim is None else (one.claim.key,)
        issued = await self._ask(partial(self._rows.issue, one, code, decide), len(one.octets), keys)
        if isinstance(issued.answer, Accepted):
            self._open[one.mail_id] = one.seq
        return issued

    async def claim(self, request: Request, mail_id: str) -> Accepted | Earlier | Running | Conflict | TakenOver:
        """Keep a request id for the mail that is about to be accepted, unless it came before."""
        claim = self._claim(request, mail_id, next(self._seqs))
        try:
            answer = await self._ask(partial(self._rows.claim, claim), _CLAIM_OCTETS, (claim.key,))
        except asyncio.CancelledError:  # `release` does not know the mail's id after a take-over
            self._writer.note(partial(self._rows.release_call, claim))
            raise
        if isinstance(answer, TakenOver):
            self._open[answer.mail_id] = claim.seq
            self._taken_over.add(answer.mail_id)
        elif isinstance(answer, Accepted):
            self._open[mail_id] = claim.seq
        return answer

    def release(self, request: Request, mail_id: str) -> None:
        """Free a request id that was claimed for a mail which was not accepted: the caller's next try counts as new.

        One that was taken over is to be taken over again: the relay may have the mail, so its id must stay. A claim
        that was refused has left nothing in the file, so nothing waits for a file that can't be written.
        """
        seq = self._open.pop(mail_id, None)
        if seq is None:
            return
        key, is_taken_over = request_key(request.caller, request.request_id), mail_id in self._taken_over
        self._taken_over.discard(mail_id)
        self._writer.note(partial(self._rows.release, key, mail_id, is_taken_over=is_taken_over), seq)

    def deferred(self, mail_id: str, progress: Progress) -> None:
        """Note how far an accepted mail has come."""
        seq = self._open.get(mail_id)
        if seq is not None:
            self._writer.note(partial(self._rows.defer, seq, mail_id, codec.encode_progress(progress)), seq)

    async def begin_attempts(self, progresses: Mapping[str, Progress]) -> None:
        """Note that attempts at accepted mails are about to begin; durable on return. Raises Unavailable."""
        rows = [
            (self._open[key], key, codec.encode_progress(one)) for key, one in progresses.items() if key in self._open
        ]
        await self._writer.ask(partial(self._rows.begin, rows))

    def settle(self, mail: Mail, *, keep_request: bool = True, entry: Entry | None = None) -> None:
        """Note the final state of a mail, and drop its content unless there is an `entry`."""
        seq = self._open.pop(mail.id, None)
        self._taken_over.discard(mail.id)
        if seq is None:  # its caller waits for the relay, and it has no request id
            self._memory.settle(mail, keep_request=keep_request, entry=entry)
            return
        if mail.create_time <= self._forgotten.latest and (left := self._forgotten.left_of(mail)) is not None:
            mail, entry = left, None
        forgotten = (mail.settle_time or self.now()) + self._retention.seconds
        keeps = keep_request and mail.request_id
        request_ends = mail.create_time + self._retention.request_seconds if keeps else 0.0
        settlement = settlement_of(mail, seq, forgotten=forgotten, request_ends=request_ends, entry=entry)
        self._writer.note(partial(self._rows.settle, settlement), seq)
        self._settled += 1
        if self._settled % _FORGET_EVERY == 0:
            self._writer.note(partial(self._rows.forget, self.now()))

    def forget_oldest(self) -> bool:
        """Forget the oldest mails in memory; False where none are left. Those in the file take no memory."""
        return self._memory.forget_oldest()

    async def forget_ended(self) -> None:
        """Forget what is past its time in the file. Raises Unavailable while it can't be written."""
        await self._forgotten.sweep(self.now())
        self._memory.count()
        while await self._writer.ask(partial(self._rows.forget, self.now())):
            pass

    async def get(self, caller: str, mail_id: str) -> Mail | None:
        """Return that caller's mail, also one that has not settled."""
        if (mail := await self._memory.get(caller, mail_id)) is not None:
            return mail
        mail = await self._read(mail_id)
        return mail if mail is not None and mail.caller == caller else None

    async def caller_of(self, mail_id: str) -> str | None:
        """Return whose mail it is, also of one that has not settled."""
        if (caller := await self._memory.caller_of(mail_id)) is not None:
            return caller
        mail = await self._read(mail_id)
        return None if mail is None else mail.caller

    async def _read(self, mail_id: str) -> Mail | None:
        found = await self._ask(partial(self._rows.get, mail_id, self._open.get(mail_id)))
        if found is None:
            return None
        mail, forgotten = found
        return mail if forgotten > self.now() else None

    async def retryable(self, caller: str, mail_id: str) -> Entry | None:
        """Return that caller's settled mail with its content, as it settled; None where its content is not kept."""
        if (entry := await self._memory.retryable(caller, mail_id)) is not None:
            return entry
        entry = await self._ask(partial(self._rows.retryable, mail_id, self.now()))
        return entry if entry is not None and entry.mail.caller == caller else None

    async def reopen(self, entry: Entry, settle_time: float) -> bool:
        """Keep a settled mail as an accepted one again, in one commit; False where it is not as it settled then."""
        mail = entry.mail
        if await self._memory.retryable(mail.caller, mail.id) is not None:  # it settled without having been in the file
            return await self._memory.reopen_in(self.accept, entry, settle_time)
        one = self._acceptance(entry)
        seq = await self._ask(partial(self._rows.reopen, one, settle_time, self.now()), len(one.octets))
        if seq:
            self._open[mail.id] = seq
        return bool(seq)

    async def find(self, caller: str, request_id: str) -> Earlier | Running | None:
        """Return that caller's mail of a request id, while it or the id is remembered, None otherwise."""
        return await self._ask(partial(self._rows.find, request_key(caller, request_id), self.now()))

    async def remembered(self, wanted: Wanted = ever) -> AsyncIterator[Sequence[Mail]]:
        """Yield the settled mails of all callers that are remembered, in slices: those in memory, then the others."""
        del wanted  # they are in no order
        async for some in self._memory.remembered():
            yield some
        now, last = self.now(), 0
        while True:
            found, last = await self._ask(partial(self._rows.settled_slice, last, _SLICE))
            yield [mail for mail, forgotten in found if forgotten > now]
            if not last:
                return

    async def begin_forgetting(self, caller: str, person: bytes, until: float) -> None:
        """Have the mails that are open now settle without a person, also in a later process."""
        name = self._forgotten.add(person, span := Span(self.now(), until, owner_of(caller)))
        self._memory.count()
        await self._writer.ask(partial(write_forgotten, name, span))

    async def erase(self, person: bytes) -> int:
        """Erase a person from settled mails, in slices; returns from how many."""
        count, last = await self._memory.erase(person), 0
        while True:
            found, last = await self._ask(partial(self._rows.erase, person, last))
            count += found
            if not last:
                return count

    def left(self) -> Iterator[Left]:
        """Yield the accepted mails of an earlier process once, by priority and then by age."""
        while self._left:
            yield self._left.pop()[1]

    async def read(self, mail_ids: Sequence[str]) -> tuple[list[Entry], list[str]]:
        """Return accepted mails, and a line for each that can't be read, which stays. Raises Unavailable."""
        seqs = [self._open[mail_id] for mail_id in mail_ids if mail_id in self._open]
        entries, faults = await self._writer.ask(partial(self._rows.entries, seqs))
        if self._was_killed:
            entries = [
                replace(entry, orphaned=True) if self._open.get(entry.mail.id, self._first) < self._first else entry
                for entry in entries
            ]
        return entries, faults

    async def _ask(self, work: Callable[[Connection], T], octets: int | None = None, keys: Sequence[int] = ()) -> T:
        try:
            return await self._writer.ask(work, octets, keys)
        except StoreEnded:
            raise
        except StoreError as error:  # sending the mail again may be wrong, so nothing is sent
            raise FailedPrecondition(f"the record of this mail in the store can't be read: {error}") from None

    def _acceptance(self, entry: Entry) -> Acceptance:
        mail = entry.mail
        seq, claim = self._open.get(mail.id) or next(self._seqs), None
        if mail.request_id:
            claim = self._claim(Request(mail.caller, mail.request_id, entry.fingerprint), mail.id, seq)
        return Acceptance(seq, mail.id, int(entry.priority), entry.deadline, codec.encode_entry(entry), claim)

    def _claim(self, request: Request, mail_id: str, seq: int) -> Claim:
        now = self.now()
        key = request_key(request.caller, request.request_id)
        fingerprints = self._digests.kept_fingerprints(request.fingerprint)
        return Claim(key, fingerprints, mail_id, seq, now, now + self._retention.request_seconds)
