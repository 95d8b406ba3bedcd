"""The counts of limits over many addresses, in this process."""

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Protocol

from otpmail.errors import MemoryFull
from otpmail.store.challenges import Quota
from otpmail.store.counts_codec import NO_COUNTS, counted_on, counts_end, counts_needed, run_of, with_one_more

_ENTRY_OCTETS = 159  # the key, two object headers, and a place in a dict
_SHARDS = 1024  # one dict with a million keys would hold the loop while it grows
_RELEASED = 4  # counts that were reached, and are spare from now on, for a new one: it takes two
_RELEASED_BY_SWEEP = 1000  # of a shard: a millisecond
_DROPPED = 2  # for a new one, which may be larger
_RUNS = 1024  # keys that have a run at a time: one or two for each caller
_FULL = "limits that are reached take their part"

_Shard = dict[bytes, bytes]


class Taken(Protocol):
    """How much memory a store takes, in `octets`."""

    octets: int


class _Run:
    """Mails in a row that count for the same limits: `counted` of them, which the octets of the counts lack yet.

    It goes on `until` a stretch of one of the counts ends, or `most` mails are counted, since the rules have a say
    then.
    """

    __slots__ = ("counted", "most", "quotas", "since", "until")

    def __init__(self, quotas: Sequence[Quota], most: int, since: float, until: float) -> None:
        self.quotas, self.most, self.since, self.until = quotas, most, since, until
        self.counted = 0

    def __repr__(self) -> str:
        return f"<_Run of {self.counted} mails, {self.most} at most, until {self.until}>"


class MemoryCounts:
    """Counts by key. The memory that they take counts in `taken`.

    Without room those that limit nobody at present give way to new ones. Counts that have reached their limit never do.
    Its whole state, of each shard: the counts that are `spare`, the one that changed longest ago first, and those that
    are `reached`. `_turns` are the shards with spare counts. `_until` has each key of a reached one once, by the time
    at which that is spare again. There are a few dozen such times: the ends of the stretches of a count. `_runs` has
    the run of each key that is counted at present, by all its keys.
    """

    def __init__(self, taken: Taken) -> None:
        self._taken = taken
        self._spare: tuple[_Shard, ...] = tuple({} for _ in range(_SHARDS))
        self._reached: tuple[_Shard, ...] = tuple({} for _ in range(_SHARDS))
        self._turns: deque[int] = deque()
        self._has_turn = bytearray(_SHARDS)
        self._until: defaultdict[float, dict[bytes, None]] = defaultdict(dict)
        self._runs: dict[bytes, _Run] = {}
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
        if key in self._runs:
            self._end_run(key)
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
        if key in self._runs:
            self._end_run(key)
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
        # fast path: nearly every mail of a caller is one of a run, 1.6 us; held to the rules by tests/store/memory
        run = self._runs.get(quotas[0].key) if quotas else None
        if run is not None and run.quotas is quotas and run.counted < run.most and run.since <= now < run.until:
            run.counted += 1
            return True
        counted = []
        for quota in quotas:
            octets = self.read(quota.key)
            after = with_one_more(octets, quota.most, now, quota.stretch) if octets != NO_COUNTS else None
            if after is None:
                return False
            counted.append(after)
        for quota, after in zip(quotas, counted, strict=True):
            self.write(quota.key, after)
        self._begin_run(quotas, counted)
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

    def _begin_run(self, quotas: Sequence[Quota], counted: Sequence[bytes]) -> None:
        """Let the next mails for these limits be a run, if the rules have no say before there are some."""
        most, since, until = 1 << 32, 0.0, float("inf")
        for quota, octets in zip(quotas, counted, strict=True):
            latest, left = run_of(octets, quota.most)
            most = min(most, left)
            since = max(since, float(latest * quota.stretch))
            until = min(until, float((latest + 1) * quota.stretch))
        if most and quotas:
            if len(self._runs) >= _RUNS:
                self._end_run(next(iter(self._runs)))
            run = _Run(quotas, most, since, until)
            for quota in quotas:
                self._runs[quota.key] = run

    def _end_run(self, key: bytes) -> None:
        """Write what a key's run has counted, as the counts that changed last."""
        run = self._runs[key]
        for quota in run.quotas:
            del self._runs[quota.key]
        for quota in run.quotas:
            self.write(quota.key, counted_on(self.read(quota.key), run.counted))

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
            self._turns.append(shard)
            if oldest in self._runs:
                self._end_run(oldest)  # which changed later than that
                continue
            self._drop(shard, oldest)
            return True
        return False

    def _drop(self, shard: int, key: bytes) -> None:
        if key in self._runs:
            self._end_run(key)
        octets = self._spare[shard].pop(key, None)
        if octets is None and (octets := self._reached[shard].pop(key, None)) is not None:
            self._until[counts_needed(octets)].pop(key, None)
        if octets is not None:
            self._taken.octets -= len(octets) + _ENTRY_OCTETS
