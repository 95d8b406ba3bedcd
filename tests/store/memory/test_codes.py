"""Code records in memory: one step for each change, and a sweep that drops what has ended."""

import asyncio
import gc
from itertools import pairwise

import pytest

from code_records import a_record
from otpmail.code_record import CodeRecord
from otpmail.errors import InvalidArgument
from otpmail.store.memory.codes import MemoryChallengeStore
from rules import POLICY
from store.clocks import Clock


@pytest.fixture
def challenges(clock: Clock) -> MemoryChallengeStore:
    """A store on the clock that the test moves."""
    return MemoryChallengeStore(clock, POLICY)


async def _read(store: MemoryChallengeStore, key: bytes) -> CodeRecord | None:
    return await store.update(key, lambda record: (record, record))


async def _write(store: MemoryChallengeStore, key: bytes, record: CodeRecord | None) -> None:
    await store.update(key, lambda _: (record, None))


async def test_a_sweep_drops_what_has_expired_and_nothing_else(clock: Clock) -> None:
    """A record stays until the moment it ends; the sweep returns how many it dropped."""
    store = MemoryChallengeStore(clock, POLICY)
    for number in range(100):
        await _write(store, number.to_bytes(16), a_record(1000.0 + number, failures=(), next_send=0.0))
    clock.time = 1050.0
    assert await store.sweep() == 51
    assert len(store) == 49
    left = [number for number in range(100) if await _read(store, number.to_bytes(16)) is not None]
    assert left == list(range(51, 100))
    assert await store.sweep() == 0


async def test_a_sweep_lets_others_in_between(clock: Clock) -> None:
    """The sweep takes a shard at a time, so other tasks have the loop many times before its end."""
    store = MemoryChallengeStore(clock, POLICY)
    for number in range(2000):
        await _write(store, number.to_bytes(16), a_record())
    turns = 0
    sizes = []
    clock.time = 100_000.0
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
        await _write(challenges, b"a", a_record(expires=clock.time + 1))
        clock.time += 100_000
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
        await _write(challenges, number.to_bytes(16), a_record())
    gc.collect()
    assert len(gc.get_objects()) < before + 200  # fewer than there are dicts


async def test_the_repr_is_a_count(challenges: MemoryChallengeStore) -> None:
    """The repr of the code store counts the records and shows none of them."""
    await _write(challenges, b"a", a_record())
    assert repr(challenges) == "<MemoryChallengeStore 1 records>"


async def test_octets_are_those_of_the_records(challenges: MemoryChallengeStore, clock: Clock) -> None:
    """The octets follow each record as it comes, grows, shrinks, goes and is swept; a faulty rule changes nothing."""

    def fail(_: CodeRecord | None) -> tuple[None, None]:
        raise InvalidArgument("field", "is wrong")

    async def octets() -> int:
        fresh = MemoryChallengeStore(clock, POLICY)
        for number in range(5):
            if (record := await _read(challenges, bytes([number]))) is not None:
                await _write(fresh, bytes([number]), record)
        return fresh.octets

    assert challenges.octets == 0
    for number in range(5):
        await _write(challenges, bytes([number]), a_record(expires=1100.0 + number))
    usual = challenges.octets
    assert 5 * 240 < usual < 5 * 280
    await _write(challenges, b"\1", a_record(failures=(1, 2, 3, 4)))
    assert challenges.octets == usual + 3 * 8 == await octets()
    await _write(challenges, b"\1", a_record(failures=(), next_send=1.0))
    assert challenges.octets == usual - 20 == await octets()
    with pytest.raises(InvalidArgument):
        await challenges.update(b"\1", fail)
    await _write(challenges, b"\2", None)
    await _write(challenges, b"\2", None)
    assert challenges.octets == await octets()
    clock.time = 100_000.0
    assert await challenges.sweep() == 4
    assert challenges.octets == 0
