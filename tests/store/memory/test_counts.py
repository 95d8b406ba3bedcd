"""Counts of limits in memory stay within what they are given, and those that limit somebody stay."""

from itertools import count, islice
from typing import Any
from unittest.mock import Mock, patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail.errors import LimitExceeded, MemoryFull
from otpmail.limits.rules import total_of
from otpmail.store.challenges import Quota
from otpmail.store.counts_codec import counts_needed, decode_counts, encode_counts
from otpmail.store.memory import counts as memory_counts
from otpmail.store.memory.codes import MemoryChallengeStore
from otpmail.store.memory.counts import MemoryCounts
from rules import POLICY
from store.clocks import Clock

_NOW = 1000.0
_FREE = encode_counts(((3, 1),), 4200.0, 0.0)
_REACHED = encode_counts(((3, 9),), 4200.0, 4200.0)


class _Taken:
    """How much memory a store takes."""

    octets = 0


def test_counts_that_limit_somebody_are_never_forgotten() -> None:
    """Without room ten thousand new counts push out others, and none that has reached its limit."""
    counts = MemoryCounts(taken := _Taken())
    reached = [f"reached {number}".encode() for number in range(100)]
    for key in reached:
        counts.write(key, _REACHED)
    for number in range(50):
        counts.write(f"free {number}".encode(), _FREE)
    octets, count = taken.octets, len(counts)
    for number in range(10_000):
        key = f"new {number}".encode()
        counts.make_room(key, _NOW)
        counts.write(key, _FREE)
    assert len(counts) <= count
    assert taken.octets <= octets
    assert all(counts.read(key) == _REACHED for key in reached)


def test_without_room_a_new_count_is_refused() -> None:
    """Where all counts limit somebody, a new one is refused, and one that is there goes on."""
    counts = MemoryCounts(taken := _Taken())
    counts.write(b"a", _REACHED)
    counts.make_room(b"a", _NOW)
    with pytest.raises(MemoryFull):
        counts.make_room(b"b", _NOW)
    counts.make_room(b"b", 4200.0)
    assert len(counts) == 0
    assert taken.octets == 0


def _sweep(counts: MemoryCounts, now: float) -> int:
    return sum(counts.sweep(now) for _ in range(1024))


def test_counts_that_have_ended_are_swept() -> None:
    """A sweep of all shards drops what has ended, and nothing else."""
    counts = MemoryCounts(taken := _Taken())
    for number in range(5):
        counts.write(bytes([number]), _FREE)
    counts.write(b"reached", _REACHED)
    assert _sweep(counts, 4199.0) == 0
    assert _sweep(counts, 4200.0) == 6
    assert _sweep(counts, 4200.0) == 0
    assert taken.octets == 0


def test_room_for_a_new_count_takes_a_few_steps_however_many_are_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among ten thousand counts that limit somebody, no new one looks at more than a dozen of them."""
    counts = MemoryCounts(_Taken())
    for number in range(10_000):
        counts.write(f"reached {number}".encode(), _REACHED)
    for number in range(100):
        counts.write(f"free {number}".encode(), _FREE)
    looks = 0

    def looked(octets: bytes) -> float:
        nonlocal looks
        looks += 1
        return counts_needed(octets)

    monkeypatch.setattr(memory_counts, "counts_needed", looked)
    most = 0
    for number in range(1000):
        looks = 0
        key = f"new {number}".encode()
        counts.make_room(key, _NOW)
        counts.write(key, _FREE)
        most = max(most, looks)
    assert most <= 12
    assert len(counts) <= 10_100


def test_reached_counts_are_spare_again_in_their_order() -> None:
    """Reached limits give way once their time has come, the first first; one that is reached again stays."""
    counts = MemoryCounts(taken := _Taken())
    again = encode_counts(((3, 9), (15, 1)), 7800.0, 7800.0)
    for number in range(20):
        counts.write(f"reached {number}".encode(), _REACHED)
    counts.write(b"reached 0", again)
    for number in range(9):
        counts.make_room(f"new {number}".encode(), 4200.0)
    assert counts.read(b"reached 0") == again
    assert len(counts) == 2
    counts.make_room(b"new", 4200.0)
    with pytest.raises(MemoryFull):
        counts.make_room(b"new", 4200.0)
    assert counts.read(b"reached 0") == again
    counts.make_room(b"new", 7800.0)
    assert (len(counts), taken.octets) == (0, 0)


def test_keys_of_reached_counts_are_kept_no_longer_than_the_counts() -> None:
    """Where there is always room, a sweep forgets also when reached counts would have been spare."""
    counts = MemoryCounts(_Taken())
    for number in range(3000):
        counts.write(f"reached {number}".encode(), _REACHED)
    _sweep(counts, 4200.0)
    assert counts.waiting == 0


async def test_a_count_that_is_reached_and_taken_back_waits_once() -> None:
    """However often the last mail of a limit is sent and taken back, its key waits once, or not at all."""
    clock = Clock()
    store, quota = MemoryChallengeStore(clock, POLICY), Quota("block", b"a block", 10)
    for _ in range(9):
        await store.count((quota,))
    for _ in range(50):
        when, _ = await store.count((quota,))
        assert store.counts.waiting == 1
        await store.uncount((quota,), when)
        assert store.counts.waiting == 0


async def test_counting_at_once_is_counting_by_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mails that are counted at once have the counts, and take the memory, that the rules give them; all or none."""
    clock = Clock()
    at_once, by_rules = MemoryChallengeStore(clock, POLICY), MemoryChallengeStore(clock, POLICY)
    monkeypatch.setattr(by_rules.counts, "count", lambda *_: False)
    hour, day = Quota("mails_per_hour", b"an hour", 90, warns=True), Quota("mails_per_day", b"a day", 60, stretch=7200)
    refused = 0
    for number in range(300):
        quotas = (hour,) if number % 3 else (hour, day)
        outcomes = [await _outcome(store, quotas) for store in (at_once, by_rules)]
        assert outcomes[0] == outcomes[1]
        refused += isinstance(outcomes[0], str)
        for quota in quotas:
            assert at_once.counts.read(quota.key) == by_rules.counts.read(quota.key)
        assert at_once.octets == by_rules.octets
        clock.time += 31.0
    assert 0 < refused < 100


_HOUR, _DAY = Quota("mails_per_hour", b"an hour", 40, warns=True), Quota("mails_per_day", b"a day", 60, stretch=7200)
_LIMITS = (
    (_HOUR,),
    (_HOUR, _DAY),
    (_DAY,),
    (_HOUR._replace(most=30), _DAY),
    (Quota("mails_per_hour", b"b", 9), _DAY),
    (),
)
"""As callers have them. Some share a key, as before and after a change of CALLERS_FILE."""

_STEPS = st.one_of(
    st.tuples(st.sampled_from(["count", "count", "take back", "read"]), st.sampled_from(_LIMITS), st.integers(1, 30)),
    st.tuples(st.sampled_from(["pass"]), st.sampled_from([1.0, 299.0, 301.0, 7200.0, -5.0, -400.0]), st.just(1)),
    st.tuples(st.sampled_from(["sweep"]), st.just(()), st.just(1)),
)


@given(st.lists(_STEPS, max_size=40))
async def test_mails_in_a_row_are_counted_by_the_rules(steps: list[tuple[str, Any, int]]) -> None:
    """Whatever happens between mails that are counted at once, they have the counts that the rules give them."""
    clock = Clock()
    at_once, by_rules = MemoryChallengeStore(clock, POLICY), MemoryChallengeStore(clock, POLICY)
    with patch.object(by_rules.counts, "count", return_value=False):
        for step, about, times in steps:
            if step == "pass":
                clock.time = max(1000.0, clock.time + about)
                continue
            for _ in range(times):
                assert await _answer(at_once, step, about) == await _answer(by_rules, step, about)
        for quotas in _LIMITS:
            assert await _answer(at_once, "read", quotas) == await _answer(by_rules, "read", quotas)
    assert (at_once.octets, len(at_once.counts)) == (by_rules.octets, len(by_rules.counts))


async def _answer(store: MemoryChallengeStore, step: str, quotas: tuple[Quota, ...]) -> object:
    """Return what a store answers to one step."""
    match step:
        case "count":
            return await _outcome(store, quotas)
        case "take back":
            await store.uncount(quotas, store.now())
        case "sweep":
            return _sweep(store.counts, store.now())
    return [store.counts.read(quota.key) for quota in quotas]


async def test_mails_of_many_callers_in_turn() -> None:
    """Each of more callers than have a run at a time has all its mails counted."""
    store = MemoryChallengeStore(Clock(), POLICY)
    callers = [(Quota("mails_per_hour", f"caller {number}".encode(), 900),) for number in range(3000)]
    for _ in range(5):
        for quotas in callers:
            await store.count(quotas)
            await store.count(quotas)
    assert {total_of(decode_counts(store.counts.read(quota.key))) for (quota,) in callers} == {10}


async def test_counts_of_a_caller_that_sends_are_not_the_first_to_be_forgotten() -> None:
    """Without room the counts of a caller that has not sent for long give way, and not those of one that does."""
    store = MemoryChallengeStore(Clock(), POLICY)
    busy = (Quota("mails_per_hour", b"busy", 900),)
    shard = hash(b"busy") % 1024
    same_shard = (key for number in count() if hash(key := b"%d" % number) % 1024 == shard)
    for _ in range(2):
        await store.count(busy)
    quiet = [(Quota("mails_per_hour", key, 900),) for key in islice(same_shard, 20)]
    for quotas in quiet:
        await store.count(quotas)
    for _ in range(100):
        await store.count(busy)
    for _ in range(4):
        store.counts.make_room(b"new", 1000.0)
    assert len(store.counts) < 20
    assert total_of(decode_counts(store.counts.read(b"busy"))) == 102


async def _outcome(store: MemoryChallengeStore, quotas: tuple[Quota, ...]) -> object:
    try:
        return await store.count(quotas)
    except LimitExceeded as error:
        return error.limit


async def test_a_mail_of_a_caller_is_counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules are asked for the first mail of a limit, and not for the next ones."""
    store, quota = MemoryChallengeStore(Clock(), POLICY), Quota("hour", b"an hour", 900)
    by_rules = Mock(wraps=store._admitted)
    monkeypatch.setattr(store, "_admitted", by_rules)
    for _ in range(50):
        await store.count((quota,))
    assert by_rules.call_count == 1
