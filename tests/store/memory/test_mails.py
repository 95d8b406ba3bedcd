"""Promises about mails that only a store in memory makes; `tests/store/test_mails.py` has those of every store."""

import gc
from dataclasses import replace

import pytest

from otpmail.model import RecipientResult
from otpmail.store.base import Accepted, Earlier, Progress, Request, Running
from otpmail.store.memory import MemoryStore
from otpmail.store.memory.mails import MemoryMailStore
from otpmail.store.retention import Retention
from rules import POLICY
from store.clocks import Clock
from store.entries import DAY, R1, REMEMBER_COUNT, REMEMBER_SECONDS, entry_of, mail_of, settled


@pytest.fixture
def mails(clock: Clock) -> MemoryMailStore:
    """A store on the clock that the test moves."""
    return MemoryMailStore(clock, retention=Retention(seconds=REMEMBER_SECONDS, count=REMEMBER_COUNT))


# Request ids.


async def test_mails_without_a_request_id_leave_none_behind(mails: MemoryMailStore) -> None:
    """A settled mail without a request id is not found by the empty one."""
    mails.settle(settled(mail_of("m1")))
    assert repr(mails) == "<MemoryMailStore 1 settled, 0 request ids>"


@pytest.mark.parametrize("every", [600.0, 7.0])
async def test_a_trickle_is_remembered_for_its_whole_time(clock: Clock, every: float) -> None:
    """The store remembers mails and request ids for their whole time while they are fewer than `remember_count`."""
    begun = clock.time
    store = MemoryMailStore(clock, retention=Retention(seconds=REMEMBER_SECONDS, count=1_000_000))
    for number in range(round(1.5 * DAY / every)):
        await store.claim(Request("shop", f"r{number}", b"f"), f"m{number}")
        store.settle(settled(mail_of(f"m{number}", request_id=f"r{number}", create_time=clock.time), clock.time))
        clock.time += every
        passed = clock.time - begun
        oldest = {seconds: max(0, int((passed - seconds) // every) + 1) for seconds in (DAY, REMEMBER_SECONDS)}
        assert isinstance(await store.claim(Request("shop", f"r{oldest[DAY]}", b"f"), "new"), Earlier)
        assert await store.get("shop", f"m{oldest[REMEMBER_SECONDS]}") is not None


async def test_a_retried_mail_leaves_its_request_id_to_a_later_one(clock: Clock) -> None:
    """A mail whose request id was forgotten, and came again, is retried without ending the later mail's claim."""
    store = MemoryMailStore(clock, retention=Retention(seconds=7 * DAY, count=1000))
    await store.claim(R1, "m1")
    failed = entry_of(replace(mail_of("m1", request_id="r1", create_time=clock()), settle_time=clock()))
    store.settle(failed.mail, entry=failed)
    for number in range(6):
        clock.time += DAY / 2
        await store.claim(Request("shop", f"other{number}", b"f"), f"n{number}")
        store.settle(settled(mail_of(f"n{number}", request_id=f"other{number}", create_time=clock()), clock()))
    assert await store.find("shop", "r1") is None
    assert await store.reopen(failed, failed.mail.settle_time or 0.0)
    assert await store.claim(R1, "m2") == Accepted()
    store.settle(settled(failed.mail, clock()))
    assert await store.claim(R1, "m3") == Running("m2")


# Settled mails.


async def test_a_mail_that_runs_is_not_found(mails: MemoryMailStore) -> None:
    """The store does not find a running mail, which only the lifecycle of this process knows."""
    await mails.accept([entry_of(mail_of(request_id="r1"))])
    mails.deferred("m1", Progress(pending=("ada@example.org",), attempts=1))
    assert await mails.get("shop", "m1") is None
    assert await mails.cancel("shop", "m1") is None


async def test_settled_mails_are_bounded_in_number(mails: MemoryMailStore) -> None:
    """The store drops the oldest settled mails once there are more than `remember_count`."""
    for number in range(REMEMBER_COUNT + 2):
        mails.settle(settled(mail_of(f"m{number}")))
    found = [await mails.get("shop", f"m{number}") is not None for number in range(REMEMBER_COUNT + 2)]
    assert found == [False, False, *[True] * REMEMBER_COUNT]


async def test_the_garbage_collector_does_not_look_at_settled_mails(clock: Clock) -> None:
    """The garbage collector tracks neither settled mails nor their request ids."""
    store = MemoryMailStore(clock, retention=Retention(seconds=3600, count=10_000))
    gc.collect()
    before = len(gc.get_objects())
    for number in range(5000):
        await store.claim(Request("shop", f"r{number}", b"f"), f"m{number}")
        store.settle(settled(mail_of(f"m{number}", request_id=f"r{number}")))
    gc.collect()
    assert len(gc.get_objects()) < before + 1000


# Promises of a shared store that a store in memory does not make.


async def test_nothing_arrives(mails: MemoryMailStore) -> None:
    """A store in memory is not durable, so no mail of an earlier process arrives."""
    assert not mails.durable
    await mails.accept([entry_of(mail_of())])
    assert [entries async for entries in mails.arrivals()] == []


async def test_the_clock_is_the_stores(mails: MemoryMailStore, clock: Clock) -> None:
    """`now` is on the clock that decides when mails are forgotten."""
    clock.time += 5
    assert mails.now() == clock.time


async def test_the_store_has_both_on_one_clock(clock: Clock) -> None:
    """Codes and mails share the clock; opening and closing it wait for nothing, and its repr counts."""
    store = MemoryStore(clock, retention=Retention(count=1), rules=POLICY)
    await store.open()
    assert store.challenges.now() == store.mails.now() == clock.time
    await store.mails.claim(R1, "m1")
    store.mails.settle(settled(mail_of("m2")))
    await store.close()
    assert repr(store) == "<MemoryStore <MemoryChallengeStore 0 records>, <MemoryMailStore 1 settled, 1 request ids>>"


async def test_without_a_limit_in_time_mails_are_remembered_by_number(clock: Clock) -> None:
    """By default only their number limits how long settled mails are remembered."""
    store = MemoryStore(clock, retention=Retention(count=10), rules=POLICY)
    store.mails.settle(settled(mail_of(), clock.time))
    clock.time += 365 * DAY
    assert await store.mails.get("shop", "m1") is not None


async def test_settled_mails_are_forgotten_before_request_ids(clock: Clock) -> None:
    """Where memory is short settled mails go first: without its request id a repeated request is sent again."""
    store = MemoryMailStore(clock, retention=Retention(seconds=3600, count=1000))
    for number in range(3):
        await store.claim(Request("shop", f"r{number}", b"f"), f"m{number}")
        store.settle(settled(mail_of(f"m{number}", request_id=f"r{number}"), 1000.0 + number))
    assert store.octets > 0
    assert store.forget_oldest()
    assert await store.get("shop", "m0") is None
    assert isinstance(await store.claim(Request("shop", "r0", b"f"), "new"), Earlier)
    while store.forget_oldest():
        pass
    assert store.octets == 0
    assert isinstance(await store.claim(Request("shop", "r0", b"f"), "new"), Accepted)


async def test_remembered_mails_are_bounded_in_octets(clock: Clock) -> None:
    """Mails for many recipients are forgotten once they take the octets they may, not only by their number."""
    store = MemoryMailStore(clock, retention=Retention(seconds=3600, count=1_000_000, octets=1_000_000))
    results = tuple(RecipientResult(f"person-{number}@example.org", 250, "2.0.0", "ok") for number in range(100))
    for number in range(1000):
        mail = replace(mail_of(f"m{number}", request_id=f"r{number}"), recipients=results, settle_time=1000.0 + number)
        await store.claim(Request("shop", f"r{number}", b"f"), mail.id)
        store.settle(mail)
        assert store.octets <= 1_020_000
    assert await store.get("shop", "m999") is not None
    assert await store.get("shop", "m0") is None


async def test_contents_are_forgotten_first(clock: Clock) -> None:
    """Where memory is short the contents of failed mails go before the mails themselves, and take half at most."""
    store = MemoryMailStore(clock, retention=Retention(seconds=3600, count=1000, octets=100_000))
    for number in range(100):
        entry = entry_of(replace(mail_of(f"m{number}"), settle_time=1000.0), content=bytes(4000))
        store.settle(entry.mail, entry=entry)
        assert store.octets <= 70_000 + 1000 * (number + 1)
        assert await store.retryable("shop", f"m{number}") == entry
    assert await store.retryable("shop", "m0") is None
    assert await store.get("shop", "m0") is not None
    while await store.retryable("shop", "m99") is not None:
        assert store.forget_oldest()
    assert await store.get("shop", "m0") is not None
    while store.forget_oldest():
        pass
    assert store.octets == 0
