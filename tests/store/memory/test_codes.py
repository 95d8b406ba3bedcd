"""Code records in memory: one step for each change, and a sweep that drops what has ended."""

import asyncio
import gc
from dataclasses import replace
from itertools import pairwise

import pytest

from otpmail.errors import InvalidArgument
from otpmail.model import Challenge, CodeRecord
from otpmail.store.memory.codes import MemoryChallengeStore
from store.clocks import Clock


@pytest.fixture
def challenges(clock: Clock) -> MemoryChallengeStore:
    """A store on the clock that the test moves."""
    return MemoryChallengeStore(clock)


def _record(expires: float = 1120.0, attempts: int = 0) -> CodeRecord:
    return CodeRecord(Challenge(bytes(range(16)), "k1", expires, attempts), (999.5,), 1030.0)


async def _read(store: MemoryChallengeStore, key: bytes) -> CodeRecord | None:
    return await store.update(key, lambda record: (record, record))


async def _write(store: MemoryChallengeStore, key: bytes, record: CodeRecord | None) -> None:
    await store.update(key, lambda _: (record, None))


async def test_a_record_is_what_the_rule_made_of_it(challenges: MemoryChallengeStore) -> None:
    """An unknown key is None. The rule's record is kept whole; None removes it."""
    assert await _read(challenges, b"a") is None
    await _write(challenges, b"a", _record())
    assert await _read(challenges, b"a") == _record()
    await _write(challenges, b"a", None)
    assert await _read(challenges, b"a") is None
    await _write(challenges, b"a", None)


async def test_keys_are_apart(challenges: MemoryChallengeStore) -> None:
    """A rule sees and changes the record of its own key alone."""
    for number in range(50):
        await _write(challenges, number.to_bytes(16), _record(attempts=number))
    await _write(challenges, (7).to_bytes(16), None)
    found = [await _read(challenges, number.to_bytes(16)) for number in range(50)]
    assert found == [None if number == 7 else _record(attempts=number) for number in range(50)]


async def test_the_answer_is_what_the_rule_returned(challenges: MemoryChallengeStore) -> None:
    """`update` hands the rule's second value through."""
    returned = object()
    assert await challenges.update(b"a", lambda record: (record, returned)) is returned


@pytest.mark.parametrize("before", [None, _record()])
async def test_a_rule_that_raises_changes_nothing(challenges: MemoryChallengeStore, before: CodeRecord | None) -> None:
    """The record stays as it was, and the store goes on working."""
    await _write(challenges, b"a", before)

    def refuse(_: CodeRecord | None) -> tuple[CodeRecord | None, None]:
        raise InvalidArgument("email", "no")

    with pytest.raises(InvalidArgument):
        await challenges.update(b"a", refuse)
    assert await _read(challenges, b"a") == before


async def test_every_update_sees_those_before_it(challenges: MemoryChallengeStore) -> None:
    """A hundred updates at the same moment are applied one after another: none is lost."""
    await _write(challenges, b"a", _record())

    def count(record: CodeRecord | None) -> tuple[CodeRecord | None, int]:
        assert record is not None
        assert record.challenge is not None
        counted = replace(record.challenge, attempts=record.challenge.attempts + 1)
        return replace(record, challenge=counted), counted.attempts

    returned = await asyncio.gather(*(challenges.update(b"a", count) for _ in range(100)))
    assert sorted(returned) == list(range(1, 101))


async def test_the_clock_is_the_stores(challenges: MemoryChallengeStore, clock: Clock) -> None:
    """`now` is read on the clock on which records expire."""
    before = challenges.now()
    clock.time += 5
    assert challenges.now() - before == pytest.approx(5)


async def test_a_sweep_drops_what_has_expired_and_nothing_else(clock: Clock) -> None:
    """A record stays until the moment it ends; the sweep returns how many it dropped."""
    store = MemoryChallengeStore(clock)
    for number in range(100):
        await _write(store, number.to_bytes(16), CodeRecord(Challenge(bytes(range(16)), "k1", 1000.0 + number)))
    clock.time = 1050.0
    assert await store.sweep() == 51
    assert len(store) == 49
    left = [number for number in range(100) if await _read(store, number.to_bytes(16)) is not None]
    assert left == list(range(51, 100))
    assert await store.sweep() == 0


async def test_a_sweep_keeps_failures_of_the_last_hour(clock: Clock) -> None:
    """A record whose code is gone still counts its failures, and still spaces mails."""
    store = MemoryChallengeStore(clock)
    await _write(store, b"failed", CodeRecord(None, (1000.0,)))
    await _write(store, b"spaced", CodeRecord(None, (), 1030.0))
    clock.time = 1031.0
    assert await store.sweep() == 1
    clock.time = 1000.0 + 3600.0 - 0.1
    assert await store.sweep() == 0
    clock.time += 0.1
    assert await store.sweep() == 1


async def test_a_sweep_lets_others_in_between(clock: Clock) -> None:
    """The sweep takes a shard at a time, so other tasks have the loop many times before its end."""
    store = MemoryChallengeStore(clock)
    for number in range(2000):
        await _write(store, number.to_bytes(16), _record())
    turns = 0
    sizes = []
    clock.time = 10_000.0
    sweeping = asyncio.create_task(store.sweep())
    while not sweeping.done():
        turns += 1
        sizes.append(len(store))
        assert await store.update(b"new", lambda _: (None, True))
        await asyncio.sleep(0)
    assert sweeping.result() == 2000
    assert turns > 50
    assert max(before - after for before, after in pairwise(sizes)) < 100


async def test_sweeping_forever_ends_when_cancelled(challenges: MemoryChallengeStore, clock: Clock) -> None:
    """The sweeping task sweeps again and again, and ends only when it is cancelled."""
    sweeping = asyncio.create_task(challenges.sweep_forever(0.0))
    for _ in range(2):
        await _write(challenges, b"a", _record(expires=clock.time + 1))
        clock.time += 10_000
        async with asyncio.timeout(20):
            while len(challenges):  # noqa: ASYNC110  a sweep notifies nobody
                await asyncio.sleep(0)
    sweeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sweeping


async def test_the_garbage_collector_does_not_look_at_records(challenges: MemoryChallengeStore) -> None:
    """The garbage collector tracks neither records nor their dicts, since a million of them would block the loop."""
    gc.collect()
    before = len(gc.get_objects())
    for number in range(5000):
        await _write(challenges, number.to_bytes(16), _record())
    gc.collect()
    assert len(gc.get_objects()) < before + 200  # fewer than there are dicts


async def test_the_repr_is_a_count(challenges: MemoryChallengeStore) -> None:
    """The repr of the code store counts the records and shows none of them."""
    await _write(challenges, b"a", _record())
    assert repr(challenges) == "<MemoryChallengeStore 1 records>"


async def test_octets_are_those_of_the_records(challenges: MemoryChallengeStore, clock: Clock) -> None:
    """The octets follow each record as it comes, grows, shrinks, goes and is swept; a faulty rule changes nothing."""

    def fail(_: CodeRecord | None) -> tuple[None, None]:
        raise InvalidArgument("field", "is wrong")

    async def octets() -> int:
        fresh = MemoryChallengeStore(clock)
        for number in range(5):
            if (record := await _read(challenges, bytes([number]))) is not None:
                await _write(fresh, bytes([number]), record)
        return fresh.octets

    assert challenges.octets == 0
    for number in range(5):
        await _write(challenges, bytes([number]), _record(expires=1100.0 + number))
    usual = challenges.octets
    assert 5 * 180 < usual < 5 * 240
    await _write(challenges, b"\1", replace(_record(), failures=(1.0, 2.0, 3.0, 4.0)))
    assert challenges.octets == usual + 3 * 8 == await octets()
    await _write(challenges, b"\1", replace(_record(), failures=()))
    assert challenges.octets == usual - 8 == await octets()
    with pytest.raises(InvalidArgument):
        await challenges.update(b"\1", fail)
    await _write(challenges, b"\2", None)
    await _write(challenges, b"\2", None)
    assert challenges.octets == await octets()
    clock.time = 10_000.0
    assert await challenges.sweep() == 4
    assert challenges.octets == 0
