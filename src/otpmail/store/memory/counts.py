"""The counts of limits over many addresses, in this process."""

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Protocol

from otpmail.errors import MemoryFull
from otpmail.store.challenges import Quota
from otpmail.store.counts_codec import NO_COUNTS, counts_end, counts_needed, with_one_more

_ENTRY_OCTETS = 159  # the key, two object headers, and a place in a dict
_SHARDS = 1024  # one dict with a million keys would hold the loop while it grows
_RELEASED = 4  # counts that were reached, and are spare from now on, for a new one: it takes two
_RELEASED_BY_SWEEP = 1000  # of a shard: a millisecond
_DROPPED = 2  # for a new one, which may be larger
_FULL = "limits that are reached take their part"

_Shard = dict[bytes, bytes]


class Taken(Protocol):
    """How much memory a store takes, in `octets`."""

    octets: int


class MemoryCounts:
    """Counts by key. The memory that they take counts in `taken`.

    Without room those that limit nobody at present give way to new ones. Counts that have reached their limit never do.
    Its whole state, of each shard: the counts that are `spare`, the one that changed longest ago first, and those that
    are `reached`. `_turns` are the shards with spare counts. `_until` has each key of a reached one once, by the time
    at which that is spare again. There are a few dozen such times: the ends of the stretches of a count.
    """

    def __init__(self, taken: Taken) -> None:
        self._taken = taken
        self._spare: tuple[_Shard, ...] = tuple({} for _ in range(_SHARDS))
        self._reached: tuple[_Shard, ...] = tuple({} for _ in range(_SHARDS))
        self._turns: deque[int] = deque()
        self._has_turn = bytearray(_SHARDS)
        self._until: defaultdict[float, dict[bytes, None]] = defaultdict(dict)
        self._swept = 0

    def __repr__(self) -> str:
        return f"<MemoryCounts {len(self)} counts>"

    def __len__(self) -> int:
        return sum(map(len, self._spare)) + sum(map(len, self._reached))

    @property
    def waiting(self) -> int:
        """How many keys wait for the time at which they limit nobody."""
        return sum(map(len, self._until.values()))

    def read(self, key: bytes) -> bytes:
        """Return the octets of a key, those of no counts where it has none."""
        shard = hash(key) % _SHARDS
        return self._spare[shard].get(key) or self._reached[shard].get(key, NO_COUNTS)

    def make_room(self, key: bytes, now: float) -> None:
        """Forget old counts that limit nobody, unless the key has counts. Raises MemoryFull without any.

        The shards take turns, and each forgets the one that changed longest ago. However many counts there are, it
        looks at a few.
        """
        shard = hash(key) % _SHARDS
        if key in self._spare[shard] or key in self._reached[shard]:
            return
        self._release(now, _RELEASED)
        for dropped in range(_DROPPED):
            if not self._drop_oldest():
                if not dropped:
                    raise MemoryFull(_FULL)
                return

    def write(self, key: bytes, octets: bytes) -> None:
        """Keep counts as octets, as those that changed last."""
        shard = hash(key) % _SHARDS
        needed = counts_needed(octets)
        if key in (spare := self._spare[shard]) and not needed and octets != NO_COUNTS:
            self._taken.octets += len(octets) - len(spare.pop(key))
            spare[key] = octets
            return
        self._drop(shard, key)
        if octets == NO_COUNTS:
            return
        self._taken.octets += len(octets) + _ENTRY_OCTETS
        if not needed:
            self._keep_spare(shard, key, octets)
            return
        self._reached[shard][key] = octets
        self._until[needed][key] = None

    def count(self, quotas: Sequence[Quota], now: float) -> bool:
        """Count one more for all of these limits; False, and nothing is counted, where that is for the rules to say."""
        # fast path: nearly every mail of a caller finds it so, 3 us; held to the full path by tests/store/memory
        counted, grown = [], 0
        for quota in quotas:
            key = quota.key
            spare = self._spare[hash(key) % _SHARDS]
            octets = spare.get(key)
            if octets is None or (after := with_one_more(octets, quota.most, now, quota.stretch)) is None:
                return False
            counted.append((spare, key, after))
            grown += len(after) - len(octets)
        for spare, key, after in counted:
            del spare[key]  # so that it is the one that changed last
            spare[key] = after
        if grown:
            self._taken.octets += grown
        return True

    def sweep(self, now: float) -> int:
        """Drop those that have ended, of the next shard; returns how many those were."""
        self._release(now, _RELEASED_BY_SWEEP)
        shard = self._swept
        self._swept = (shard + 1) % _SHARDS
        ended = [
            key
            for kept in (self._spare[shard], self._reached[shard])
            for key, octets in kept.items()
            if counts_end(octets) <= now
        ]
        for key in ended:
            self._drop(shard, key)
        return len(ended)

    def _release(self, now: float, most: int) -> None:
        """Let `most` reached counts be spare again whose time has come, those with the earliest time first."""
        while most and (due := min(self._until, default=now + 1)) <= now:
            keys = self._until[due]
            while most and keys:
                key, _ = keys.popitem()  # one that was added late: the first of a dict takes ever more steps to find
                shard = hash(key) % _SHARDS
                self._keep_spare(shard, key, self._reached[shard].pop(key))
                most -= 1
            if not keys:
                del self._until[due]

    def _keep_spare(self, shard: int, key: bytes, octets: bytes) -> None:
        self._spare[shard][key] = octets
        if not self._has_turn[shard]:
            self._has_turn[shard] = True
            self._turns.append(shard)

    def _drop_oldest(self) -> bool:
        """Forget the oldest spare count of the shard whose turn it is; False where none is left."""
        while self._turns:
            shard = self._turns.popleft()
            oldest = next(iter(self._spare[shard]), None)
            if oldest is None:
                self._has_turn[shard] = False
                continue
            self._drop(shard, oldest)
            self._turns.append(shard)
            return True
        return False

    def _drop(self, shard: int, key: bytes) -> None:
        octets = self._spare[shard].pop(key, None)
        if octets is None and (octets := self._reached[shard].pop(key, None)) is not None:
            self._until[counts_needed(octets)].pop(key, None)
        if octets is not None:
            self._taken.octets -= len(octets) + _ENTRY_OCTETS
