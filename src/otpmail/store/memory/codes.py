"""Code records in this process: a dict that a periodic task sweeps. Each decision is one step of the loop."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar

from otpmail.code_record import CodeRecord, Lane, Slot
from otpmail.model import Challenge, Check, Reached, Sending
from otpmail.store import record_codec
from otpmail.store.challenges import ANY, Attempt, Guess, Quota, Rules, Send
from otpmail.store.memory.counts import MemoryCounts
from otpmail.store.records import Others, Rule, RuledRecords

T = TypeVar("T")

_NO_RECORD = record_codec.encode_record(
    CodeRecord((Slot(bytes(8), challenge=Challenge(bytes(16), "k1", 0.0, 1)),), (Lane(sends=(1,)),))
)
_ENTRY_OCTETS = 159  # the key, two object headers, and a place in a dict
_LOOKED_AT = 64  # records, for one that may be forgotten
_SHARDS = 1024  # one dict with a million keys would hold the loop while it grows, and while it is swept


class MemoryChallengeStore(RuledRecords):
    """Code records by key (see `store.base.ChallengeStore`). The dict is split into shards of a thousand keys or so.

    A record is kept as octets. The garbage collector would look through a million objects, and hold the loop for it.
    `octets` is the memory that all records take, with the `counts` of limits.
    """

    reads_earlier = False
    counts_at_once = True

    def __init__(self, clock: Callable[[], float], rules: Rules) -> None:
        super().__init__(rules)
        self.now = clock
        self.octets = 0
        self.counts = MemoryCounts(self)
        self._others = Others(self.counts.read, self.counts.write, self._record, self._keep)
        self._shards: tuple[dict[bytes, bytes], ...] = tuple({} for _ in range(_SHARDS))

    def __repr__(self) -> str:
        return f"<MemoryChallengeStore {len(self)} records>"

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def send(self, send: Send) -> Awaitable[Sending]:
        """Decide which challenge to mail now. Without room, records that say little give way to a new one."""
        if not send.room and self._make_room(send.key, send.now):
            send = send._replace(room=True)
        if send.quotas or send.mailbox:
            return self.update(send.key, partial(self._with_counts, send=send))
        return self.update(send.key, partial((send.rules or self._rules).send, send=send))

    def check(self, key: bytes, now: float, guess: Guess, attempt: Attempt = ANY) -> Awaitable[Check]:
        """Count an attempt, compare, and use the code up if it is right."""
        if attempt.quotas:
            return self.update(key, partial(self._guessed, self._others, now=now, guess=guess, attempt=attempt))
        return self.update(key, partial((attempt.rules or self._rules).check, now=now, guess=guess, attempt=attempt))

    def unsend(self, key: bytes, sending: Sending) -> Awaitable[None]:
        """Take a sending back, and what it has counted for."""
        return self.update(key, partial(self._uncounted, self._others, sending=sending))

    async def count(self, quotas: Sequence[Quota]) -> tuple[float, tuple[Reached, ...]]:
        """Count a mail for limits over many addresses."""
        now = self.now()
        return (now, ()) if self.counts.count(quotas, now) else self._admitted(self._others, quotas, now)

    async def uncount(self, quotas: Sequence[Quota], when: float) -> None:
        """Take a mail back."""
        self._taken_back(self._others, quotas, when)

    async def update(self, key: bytes, rule: Rule[T]) -> T:
        """Replace the record by what `rule` makes of it, in one step, and return what else the rule returns.

        When the rule raises, the record stays unchanged.
        """
        shard = self._shards[hash(key) % _SHARDS]
        kept = shard.get(key)
        # A record is decoded and encoded in every case, so that the time does not tell whether there is one.
        before = record_codec.decode_record(_NO_RECORD if kept is None else kept)
        after, result = rule(before if kept is not None else None)
        octets = record_codec.encode_record(before if after is None else after)
        self.octets += (0 if after is None else len(octets) + _ENTRY_OCTETS) - (
            0 if kept is None else len(kept) + _ENTRY_OCTETS
        )
        if after is None:
            shard.pop(key, None)
        else:
            shard[key] = octets
        return result

    def _with_counts(self, record: CodeRecord | None, *, send: Send) -> tuple[CodeRecord | None, Sending]:
        """Count a mail for limits over many addresses, where there is room for its counts."""
        if not send.room:
            for quota in send.quotas:
                self.counts.make_room(quota.key, send.now)
        return self._counted(self._others, record, send)

    def _record(self, key: bytes) -> CodeRecord | None:
        kept = self._shards[hash(key) % _SHARDS].get(key)
        return None if kept is None else record_codec.decode_record(kept)

    def _keep(self, key: bytes, record: CodeRecord | None) -> None:
        shard = self._shards[hash(key) % _SHARDS]
        kept = shard.pop(key, None)
        if kept is not None:
            self.octets -= len(kept) + _ENTRY_OCTETS
        if record is not None:
            shard[key] = octets = record_codec.encode_record(record)
            self.octets += len(octets) + _ENTRY_OCTETS

    def _make_room(self, key: bytes, now: float) -> bool:
        """Forget the oldest records that a key's shard can do without, as many as a new one takes."""
        shard = self._shards[hash(key) % _SHARDS]
        oldest = [(kept, record_codec.record_needed(shard[kept])) for kept in islice(shard, _LOOKED_AT)]
        spare = [kept for kept, needed in oldest if needed <= now][:2]
        for kept in spare:
            self.octets -= len(shard.pop(kept)) + _ENTRY_OCTETS
        return bool(spare)

    async def sweep(self) -> int:
        """Drop the records that have ended, a shard at a time, and return how many those were."""
        dropped = 0
        for shard in self._shards:
            now = self.now()
            ended = [key for key, kept in shard.items() if record_codec.record_ends(kept) <= now]
            for key in ended:
                self.octets -= len(shard.pop(key)) + _ENTRY_OCTETS
            dropped += len(ended) + self.counts.sweep(now)
            await asyncio.sleep(0)  # other tasks have the loop between two shards
        return dropped

    async def sweep_forever(self, every: float) -> None:
        """Sweep each `every` seconds until cancelled."""
        while True:
            await asyncio.sleep(every)
            await self.sweep()
