"""Code records in this process: a dict that a periodic task sweeps. Each decision is one step of the loop."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import islice
from typing import TypeVar

from otpmail.code_record import CodeRecord, Lane, Slot
from otpmail.errors import MemoryFull
from otpmail.model import Challenge, Check, CheckResult, Reached, Sending
from otpmail.store import record_codec
from otpmail.store.address_codec import mark_of
from otpmail.store.challenges import ANY, Attempt, Guess, Quota, Rules, Send
from otpmail.store.counts_codec import with_one_more
from otpmail.store.memory.counts import MemoryCounts
from otpmail.store.records import Others, Rule, RuledRecords, is_at_short_codes

T = TypeVar("T")

_NO_RECORD = record_codec.encode_record(
    CodeRecord((Slot(bytes(8), challenge=Challenge(bytes(16), "k1", 0.0, 1)),), (Lane(sends=(1,)),))
)
_ENTRY_OCTETS = 159  # the key, two object headers, and a place in a dict
_LOOKED_AT = 64  # records, for one that may be forgotten
_SEARCHED = 256  # records, for some of the caller with most
_EVICTED_RECORDS = 2  # records, for a new one
_EVICTED_CODES = 6  # records that lose no more than their codes, for a new one
_MARK_OCTETS = len(mark_of(""))
_LEVEL_OCTETS = 4096  # that the share of one caller may exceed that of another
_SHARDS = 1024  # one dict with a million keys would hold the loop while it grows, and while it is swept


class MemoryChallengeStore(RuledRecords):
    """Code records by key (see `store.base.ChallengeStore`). The dict is split into shards of a thousand keys or so.

    A record is kept as octets. The garbage collector would look through a million objects, and hold the loop for it.
    `octets` is the memory that all records take, with the `counts` of limits. Behind the octets of a record are a few
    that say whose it is. `on_evicted` is called with a caller, the one whose records were evicted for that of the
    first, and how many did.
    """

    reads_earlier = False  # no property, since each call asks
    checks_at_once = True

    def __init__(self, clock: Callable[[], float], rules: Rules) -> None:
        super().__init__(rules)
        self.now = clock
        self.octets = 0
        self.counts = MemoryCounts(self)
        self._others = Others(self.counts.read, self.counts.write, self._record, self._keep)
        self._shards: tuple[dict[bytes, bytes], ...] = tuple({} for _ in range(_SHARDS))
        self._shares: defaultdict[bytes, int] = defaultdict(int)  # octets of each caller, by its mark
        self._callers: dict[bytes, str] = {}  # by their marks, those with records
        self.on_evicted: Callable[[str, str, int], None] = lambda *_: None

    def __repr__(self) -> str:
        return f"<MemoryChallengeStore {len(self)} records>"

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def send(self, send: Send) -> Awaitable[Sending]:
        """Decide which challenge to mail now. Without room, records that say little give way to a new one.

        Without any, records of the caller with most do, if the new one is of another. Nothing gives way to a mail that
        is refused, or that an earlier call has had decided.
        """
        mark = _mark_of(send.caller)
        if mark not in self._callers:
            self._callers[mark] = send.caller
        if not send.room:
            return self._send_without_room(send, mark)
        if send.quotas or send.mailbox:
            return self.update(send.key, partial(self._with_counts, send=send, mark=mark), mark)
        return self.update(send.key, partial((send.rules or self._rules).send, send=send), mark)

    async def _send_without_room(self, send: Send, mark: bytes) -> Sending:
        record, others = self._record(send.key), self._others
        tried = others._replace(keep_counts=_keep_nothing, keep_record=_keep_nothing)
        after, _ = self._counted(tried, record, send._replace(room=True))  # raises where the mail is refused
        if record is None:
            room = self._make_room(send.key, send.now) or self._take_from_most(send, mark)
            send = send._replace(room=room)  # without any the rule refuses it
            if room:
                with suppress(MemoryFull):  # records that gave way leave room for its counts too, if no counts can
                    self._make_room_for_counts(send)
        elif after is not record:
            self._make_room_for_counts(send)
        return await self.update(send.key, partial(self._with_counts, send=send, mark=mark), mark)

    def _make_room_for_counts(self, send: Send) -> None:
        for quota in send.quotas:
            self.counts.make_room(quota.key, send.now)

    def check(self, key: bytes, now: float, guess: Guess, attempt: Attempt = ANY) -> Awaitable[Check]:
        """Count an attempt, compare, and use the code up if it is right."""
        if attempt.mailbox:
            attempt = self._with_mails_at(attempt, self._record, now)
        if attempt.quotas:
            return self.update(key, partial(self._guessed_at_once, now=now, guess=guess, attempt=attempt))
        return self.update(key, partial((attempt.rules or self._rules).check, now=now, guess=guess, attempt=attempt))

    def _guessed_at_once(
        self, record: CodeRecord | None, *, now: float, guess: Guess, attempt: Attempt
    ) -> tuple[CodeRecord | None, Check]:
        # fast path: nearly every check of a caller with a limit, 2 us; held to the full path by tests/store/memory
        counts, [quota, *more] = self.counts, attempt.quotas
        known = counts.read(quota.key)
        counted = with_one_more(known, quota.most, now, quota.stretch)
        repeats = attempt.request or (record is not None and record.answers)
        if more or counted is None or repeats or not is_at_short_codes(record, attempt):
            return self._guessed(self._others, record, now=now, guess=guess, attempt=attempt)
        after, check = (attempt.rules or self._rules).check(record, now, guess, attempt)
        if check.result is not CheckResult.VALID:  # also where none counts: the time does not tell of a live code
            is_counted = check.result is CheckResult.WRONG_CODE and after is not record
            counts.write(quota.key, counted if is_counted else known)
        return after, check

    def unsend(self, key: bytes, sending: Sending) -> Awaitable[None]:
        """Take a sending back, and what it has counted for."""
        return self.update(key, partial(self._uncounted, self._others, sending=sending))

    def forget(self, key: bytes, earlier: bytes = b"", mailbox: bytes = b"") -> Awaitable[None]:
        """Drop the record of an address, and its mails from that of its mailbox."""
        del earlier
        return self.update(key, partial(self._forgotten, self._others, mailbox=mailbox))

    async def count(self, quotas: Sequence[Quota]) -> tuple[float, tuple[Reached, ...]]:
        """Count a mail for limits over many addresses."""
        return self.count_at_once(quotas)

    def count_at_once(self, quotas: Sequence[Quota]) -> tuple[float, tuple[Reached, ...]]:
        """Count a mail for limits over many addresses."""
        now = self.now()
        return (now, ()) if self.counts.count(quotas, now) else self._admitted(self._others, quotas, now)

    async def uncount(self, quotas: Sequence[Quota], when: float) -> None:
        """Take a mail back."""
        self._taken_back(self._others, quotas, when)

    async def update(self, key: bytes, rule: Rule[T], mark: bytes = bytes(_MARK_OCTETS)) -> T:
        """Replace the record by what `rule` makes of it, in one step, and return what else the rule returns.

        When the rule raises, the record stays unchanged. `mark` says whose a new record is.
        """
        shard = self._shards[hash(key) % _SHARDS]
        kept = shard.get(key)
        # A record is decoded and encoded in every case, so that the time does not tell whether there is one.
        before = record_codec.decode_record(_NO_RECORD if kept is None else kept)
        after, result = rule(before if kept is not None else None)
        octets = record_codec.encode_record(before if after is None else after)
        if kept is not None:
            mark = kept[-_MARK_OCTETS:]
        octets += mark
        grown = (0 if after is None else len(octets) + _ENTRY_OCTETS) - (
            0 if kept is None else len(kept) + _ENTRY_OCTETS
        )
        self.octets += grown
        self._shares[mark] += grown
        if after is None:
            shard.pop(key, None)
        else:
            shard[key] = octets
        return result

    def _with_counts(self, record: CodeRecord | None, *, send: Send, mark: bytes) -> tuple[CodeRecord | None, Sending]:
        """Decide, and count the mail for limits over many addresses."""
        others = self._others
        if send.mailbox:
            others = others._replace(keep_record=partial(self._keep, mark=mark))
        return self._counted(others, record, send)

    def _record(self, key: bytes) -> CodeRecord | None:
        kept = self._shards[hash(key) % _SHARDS].get(key)
        return None if kept is None else record_codec.decode_record(kept)

    def _keep(self, key: bytes, record: CodeRecord | None, mark: bytes = bytes(_MARK_OCTETS)) -> None:
        shard = self._shards[hash(key) % _SHARDS]
        if (kept := shard.get(key)) is not None:
            mark = kept[-_MARK_OCTETS:]
            self._drop(shard, key)
        if record is not None:
            shard[key] = octets = record_codec.encode_record(record) + mark
            self.octets += len(octets) + _ENTRY_OCTETS
            self._shares[mark] += len(octets) + _ENTRY_OCTETS

    def _drop(self, shard: dict[bytes, bytes], key: bytes) -> None:
        kept = shard.pop(key)
        self.octets -= len(kept) + _ENTRY_OCTETS
        self._shares[kept[-_MARK_OCTETS:]] -= len(kept) + _ENTRY_OCTETS

    def _make_room(self, key: bytes, now: float) -> bool:
        """Forget the oldest records that a key's shard can do without, as many as a new one takes."""
        shard = self._shards[hash(key) % _SHARDS]
        oldest = [(kept, record_codec.record_needed(shard[kept])) for kept in islice(shard, _LOOKED_AT)]
        spare = [kept for kept, needed in oldest if needed <= now][:_EVICTED_RECORDS]
        for kept in spare:
            self._drop(shard, kept)
        return bool(spare)

    def _take_from_most(self, send: Send, mark: bytes) -> bool:
        """Let some records of the caller with most give way, unless this one has about as much."""
        most = max(self._shares, key=self._shares.__getitem__, default=mark)
        if self._shares[most] - self._shares[mark] <= _LEVEL_OCTETS:
            return False
        gone = self._to_evict(send, most)
        for key, left in gone:
            self._keep(key, left)
        if gone:
            self.on_evicted(send.caller, self._callers.get(most, ""), len(gone))
        return bool(gone)

    def _to_evict(self, send: Send, most: bytes) -> list[tuple[bytes, CodeRecord | None]]:
        """Return records of a caller whose room is enough for a new one, each with what has to be left of it.

        Records without wrong codes, and with few mails in a day, go first. Of another one the counts of both stay, so
        that nobody guesses more often, and no mailbox gets more mails.
        """
        whole: list[tuple[bytes, CodeRecord | None]] = []
        codes: list[tuple[bytes, CodeRecord | None]] = []
        for key, octets in self._oldest_from(send.key):
            if not octets.endswith(most) or key in {send.key, send.mailbox}:
                continue
            record = record_codec.decode_record(octets)
            left = CodeRecord((), record.lanes)
            if record_codec.ends_of(left)[1] <= send.now:
                whole.append((key, None))
            elif record.slots and not self._refuses(record, send.now):
                codes.append((key, left))
            if len(whole) == _EVICTED_RECORDS:
                break
        return whole or (codes[:_EVICTED_CODES] if len(codes) >= _EVICTED_CODES else [])

    def _oldest_from(self, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the oldest records of a key's shard, and of the next ones."""
        first, seen = hash(key) % _SHARDS, 0
        for number in range(first, first + _SHARDS):
            shard = self._shards[number % _SHARDS]
            yield from islice(shard.items(), _LOOKED_AT)
            seen += min(len(shard), _LOOKED_AT)
            if seen >= _SEARCHED:
                return

    def _refuses(self, record: CodeRecord, now: float) -> bool:
        """Whether strangers have used up their guesses at an address, or its code is a long one."""
        is_spent = any(one.spent >= one.limit for one in self._rules.budgets(record, now))
        return is_spent or any(slot.challenge is not None and slot.challenge.is_long for slot in record.slots)

    async def sweep(self) -> int:
        """Drop the records that have ended, a shard at a time, and return how many those were."""
        dropped = 0
        for shard in self._shards:
            now = self.now()
            ended = [key for key, kept in shard.items() if record_codec.record_ends(kept) <= now]
            for key in ended:
                self._drop(shard, key)
            dropped += len(ended) + self.counts.sweep(now)
            await asyncio.sleep(0)  # other tasks have the loop between two shards
        for mark in [mark for mark, octets in self._shares.items() if not octets]:
            del self._shares[mark]
            self._callers.pop(mark, None)
        return dropped

    async def sweep_forever(self, every: float) -> None:
        """Sweep each `every` seconds until cancelled."""
        while True:
            await asyncio.sleep(every)
            await self.sweep()


_mark_of = lru_cache(1024)(mark_of)


def _keep_nothing(*_: object) -> None:
    """Take the place of a write, where a decision is tried."""
