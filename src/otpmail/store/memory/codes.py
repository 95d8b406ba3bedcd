"""Code records in this process: a dict guarded by an asyncio.Lock, swept by a periodic task."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from otpmail.model import Challenge, CodeRecord
from otpmail.store import codec
from otpmail.store.challenges import Rules
from otpmail.store.records import Rule, RuledRecords

T = TypeVar("T")

_NO_RECORD = codec.encode_record(CodeRecord(Challenge(bytes(16), "k1", 0.0, 1), (0.0,)))
_ENTRY_OCTETS = 159  # the key, two object headers, and a place in a dict
_SHARDS = 1024  # one dict with a million keys would hold the loop while it grows, and while it is swept


class MemoryChallengeStore(RuledRecords):
    """Code records by key (see `store.base.ChallengeStore`). The dict is split into shards of a thousand keys or so.

    A record is kept as octets. The garbage collector would look through a million objects, and hold the loop for it.
    `octets` is the memory that all records take.
    """

    def __init__(self, clock: Callable[[], float], rules: Rules) -> None:
        super().__init__(rules)
        self.now = clock
        self.octets = 0
        self._lock = asyncio.Lock()
        self._shards: tuple[dict[bytes, bytes], ...] = tuple({} for _ in range(_SHARDS))

    def __repr__(self) -> str:
        return f"<MemoryChallengeStore {len(self)} records>"

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    async def update(self, key: bytes, rule: Rule[T]) -> T:
        """Replace the record by what `rule` makes of it, in one step, and return what else the rule returns.

        When the rule raises, the record stays unchanged.
        """
        shard = self._shards[hash(key) % _SHARDS]
        async with self._lock:
            kept = shard.get(key)
            # A record is decoded and encoded in every case, so that the time does not tell whether there is one.
            before = codec.decode_record(_NO_RECORD if kept is None else kept)
            after, result = rule(before if kept is not None else None)
            octets = codec.encode_record(before if after is None else after)
            self.octets += (0 if after is None else len(octets) + _ENTRY_OCTETS) - (
                0 if kept is None else len(kept) + _ENTRY_OCTETS
            )
            if after is None:
                shard.pop(key, None)
            else:
                shard[key] = octets
            return result

    async def sweep(self) -> int:
        """Drop the records that have ended, a shard at a time, and return how many those were."""
        dropped = 0
        for shard in self._shards:
            async with self._lock:
                now = self.now()
                ended = [key for key, kept in shard.items() if codec.record_ends(kept) <= now]
                for key in ended:
                    self.octets -= len(shard.pop(key)) + _ENTRY_OCTETS
            dropped += len(ended)
            await asyncio.sleep(0)  # other tasks have the loop between two shards
        return dropped

    async def sweep_forever(self, every: float) -> None:
        """Sweep each `every` seconds until cancelled."""
        while True:
            await asyncio.sleep(every)
            await self.sweep()
