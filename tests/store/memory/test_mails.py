"""Request ids and settled mails in memory: a request id decides once, and a mail is remembered for a while."""

import gc
from dataclasses import replace

import pytest

from otpmail.model import Envelope, Mail, MailState, Priority, RecipientResult
from otpmail.store.base import Accepted, Conflict, Earlier, Entry, Progress, Request, Running
from otpmail.store.memory import MemoryStore
from otpmail.store.memory.mails import MemoryMailStore
from store.clocks import Clock

REMEMBER_SECONDS = 3600.0
REMEMBER_COUNT = 5
DAY = 24 * 3600.0


@pytest.fixture
def mails(clock: Clock) -> MemoryMailStore:
    """A store on the clock that the test moves."""
    return MemoryMailStore(clock, remember_seconds=REMEMBER_SECONDS, remember_count=REMEMBER_COUNT)


def _mail(mail_id: str = "m1", *, caller: str = "shop", request_id: str = "", create_time: float = 1.0) -> Mail:
    return Mail(mail_id, caller, f"<{mail_id}@example.org>", create_time, request_id)


def _settled(mail: Mail, settle_time: float = 1000.0) -> Mail:
    results = (RecipientResult("ada@example.org", 250, "2.0.0", "ok"),)
    return replace(mail, state=MailState.RELAYED, recipients=results, attempts=1, settle_time=settle_time)


def _entry(mail: Mail, fingerprint: bytes = b"f") -> Entry:
    return Entry(
        mail=mail,
        envelope=Envelope("service@example.org", ("ada@example.org",), b"hi\r\n"),
        priority=Priority.NORMAL,
        deadline=60.0,
        progress=Progress(pending=("ada@example.org",)),
        fingerprint=fingerprint,
    )


R1 = Request("shop", "r1", b"f")


# Request ids.


async def test_a_request_id_is_claimed_once(mails: MemoryMailStore) -> None:
    """The first claim takes a request id; later claims find its mail, first as running and then as settled."""
    assert await mails.claim(R1, "m1") == Accepted()
    assert await mails.claim(R1, "m2") == Running("m1")
    settled = _settled(_mail(request_id="r1"))
    mails.settle(settled)
    assert await mails.claim(R1, "m3") == Earlier(settled)


async def test_a_request_id_with_other_content_is_a_conflict(mails: MemoryMailStore) -> None:
    """Other content under a request id is a Conflict that changes nothing, before and after its mail has settled."""
    other = Request("shop", "r1", b"g")
    await mails.claim(R1, "m1")
    assert await mails.claim(other, "m2") == Conflict()
    assert await mails.claim(R1, "m2") == Running("m1")
    mails.settle(settled := _settled(_mail(request_id="r1")))
    assert await mails.claim(other, "m2") == Conflict()
    assert await mails.claim(R1, "m2") == Earlier(settled)


async def test_request_ids_are_each_callers_own(mails: MemoryMailStore) -> None:
    """Two callers may use the same request id for different mails."""
    await mails.claim(R1, "m1")
    assert await mails.claim(Request("bank", "r1", b"other"), "m2") == Accepted()
    mails.settle(_settled(_mail("m2", caller="bank", request_id="r1")))
    assert await mails.claim(R1, "m3") == Running("m1")


async def test_a_released_request_id_counts_as_new(mails: MemoryMailStore) -> None:
    """A released request id may be claimed for other content, and releasing it twice changes nothing."""
    await mails.claim(R1, "m1")
    for _ in range(2):
        mails.release(R1, "m1")
    assert await mails.claim(Request("shop", "r1", b"g"), "m2") == Accepted()


async def test_only_the_mail_that_has_a_request_id_releases_it(mails: MemoryMailStore) -> None:
    """Only the running mail that has a request id releases it, and any other release changes nothing."""
    await mails.claim(R1, "m1")
    mails.release(R1, "m2")
    assert await mails.claim(R1, "m3") == Running("m1")
    settled = _settled(_mail(request_id="r1"))
    mails.settle(settled)
    mails.release(R1, "m1")
    assert await mails.claim(R1, "m3") == Earlier(settled)


async def test_a_mail_is_accepted_with_the_request_id_that_was_claimed_for_it(mails: MemoryMailStore) -> None:
    """The store accepts the mail for which a request id was claimed, and no second mail under that id."""
    await mails.claim(R1, "m1")
    assert await mails.accept([_entry(_mail("m1", request_id="r1"))]) == [Accepted()]
    assert await mails.accept([_entry(_mail("m2", request_id="r1"))]) == [Running("m1")]


async def test_a_mail_that_settles_undecided_frees_its_request_id(mails: MemoryMailStore) -> None:
    """A mail that settles with `keep_request=False` frees its request id and is remembered by its id alone."""
    await mails.claim(R1, "m1")
    settled = _settled(_mail(request_id="r1"))
    mails.settle(settled, keep_request=False)
    assert await mails.get("shop", "m1") == settled
    assert await mails.claim(Request("shop", "r1", b"other"), "m2") == Accepted()


async def test_a_request_id_finds_its_mail(mails: MemoryMailStore) -> None:
    """`find` returns the running mail of a request id, then the settled one, to its caller alone."""
    assert await mails.find("shop", "r1") is None
    await mails.claim(R1, "m1")
    assert await mails.find("shop", "r1") == Running("m1")
    mails.settle(settled := _settled(_mail(request_id="r1")))
    assert await mails.find("shop", "r1") == Earlier(settled)
    assert await mails.find("bank", "r1") is None


async def test_a_request_id_finds_its_mail_for_a_day(mails: MemoryMailStore, clock: Clock) -> None:
    """`find` returns a settled mail as long as a repeated request does, though `get` has forgotten it."""
    await mails.claim(R1, "m1")
    mails.settle(settled := _settled(_mail(request_id="r1", create_time=clock()), clock()))
    clock.time += DAY - 1
    assert await mails.get("shop", "m1") is None
    assert await mails.find("shop", "r1") == Earlier(settled)
    clock.time += 1
    assert await mails.find("shop", "r1") is None


async def test_a_free_request_id_finds_the_last_mail(mails: MemoryMailStore, clock: Clock) -> None:
    """`find` returns a mail that freed its request id, as long as `get` does, or until the id comes again."""
    await mails.claim(R1, "m1")
    mails.settle(undecided := _settled(_mail(request_id="r1"), clock()), keep_request=False)
    assert await mails.find("shop", "r1") == Earlier(undecided)
    assert await mails.claim(R1, "m2") == Accepted()
    assert await mails.find("shop", "r1") == Running("m2")
    mails.settle(settled := _settled(_mail("m2", request_id="r1", create_time=2.0), clock()))
    assert await mails.find("shop", "r1") == Earlier(settled)


async def test_a_free_request_id_is_forgotten_with_its_mail(mails: MemoryMailStore, clock: Clock) -> None:
    """`find` and `get` forget a mail that freed its request id at the same time."""
    await mails.claim(R1, "m1")
    mails.settle(_settled(_mail(request_id="r1", create_time=clock()), clock()), keep_request=False)
    clock.time += REMEMBER_SECONDS
    assert await mails.find("shop", "r1") is None
    assert await mails.get("shop", "m1") is None


async def test_accepting_claims_the_request_ids(mails: MemoryMailStore) -> None:
    """`accept` claims request ids and answers each entry in order; entries without an id are never the same mail."""
    first = [_entry(_mail("m1", request_id="r1")), _entry(_mail("m2")), _entry(_mail("m3"))]
    assert await mails.accept(first) == [Accepted()] * 3
    again = [
        _entry(_mail("m4", request_id="r1")),
        _entry(_mail("m5", request_id="r1"), b"g"),
        _entry(_mail("m6", request_id="r2")),
        _entry(_mail("m7", request_id="r2")),
    ]
    assert await mails.accept(again) == [Running("m1"), Conflict(), Accepted(), Running("m6")]
    assert await mails.claim(R1, "m8") == Running("m1")


async def test_mails_without_a_request_id_leave_none_behind(mails: MemoryMailStore) -> None:
    """A settled mail without a request id is not found by the empty one."""
    mails.settle(_settled(_mail("m1")))
    assert repr(mails) == "<MemoryMailStore 1 settled, 0 request ids>"


async def test_request_ids_live_a_day(mails: MemoryMailStore, clock: Clock) -> None:
    """A retry within a day of the first call is known; after it the id is free, unless its mail still runs."""
    runs = Request("shop", "runs", b"f")
    await mails.claim(R1, "m1")
    await mails.claim(runs, "m2")
    begun = clock.time
    clock.time += 3600
    mails.settle(_settled(_mail(request_id="r1", create_time=begun), clock.time))
    clock.time += DAY - 3601
    assert isinstance(await mails.claim(R1, "m3"), Earlier)
    clock.time += 1
    assert await mails.claim(Request("shop", "r1", b"other"), "m3") == Accepted()
    assert await mails.claim(runs, "m4") == Running("m2")


async def test_a_mail_that_ran_for_more_than_a_day_leaves_no_request_id(mails: MemoryMailStore, clock: Clock) -> None:
    """A mail that settles more than a day after its first call leaves no request id behind."""
    await mails.claim(R1, "m1")
    clock.time += 2 * DAY
    assert await mails.claim(R1, "m2") == Running("m1")
    mails.settle(_settled(_mail(request_id="r1"), clock.time))
    assert await mails.claim(R1, "m2") == Accepted()


@pytest.mark.parametrize("every", [600.0, 7.0])
async def test_a_trickle_is_remembered_for_its_whole_time(clock: Clock, every: float) -> None:
    """The store remembers mails and request ids for their whole time while they are fewer than `remember_count`."""
    begun = clock.time
    store = MemoryMailStore(clock, remember_seconds=REMEMBER_SECONDS, remember_count=1_000_000)
    for number in range(round(1.5 * DAY / every)):
        await store.claim(Request("shop", f"r{number}", b"f"), f"m{number}")
        store.settle(_settled(_mail(f"m{number}", request_id=f"r{number}", create_time=clock.time), clock.time))
        clock.time += every
        passed = clock.time - begun
        oldest = {seconds: max(0, int((passed - seconds) // every) + 1) for seconds in (DAY, REMEMBER_SECONDS)}
        assert isinstance(await store.claim(Request("shop", f"r{oldest[DAY]}", b"f"), "new"), Earlier)
        assert await store.get("shop", f"m{oldest[REMEMBER_SECONDS]}") is not None


# Settled mails.


async def test_a_settled_mail_is_its_callers(mails: MemoryMailStore) -> None:
    """Only its caller finds a settled mail by its id, by `get` and by `cancel` alike."""
    mails.settle(_settled(_mail()))
    for find in (mails.get, mails.cancel):
        assert await find("shop", "m1") == _settled(_mail())
        assert await find("bank", "m1") is None
        assert await find("shop", "m2") is None


async def test_a_mail_that_runs_is_not_found(mails: MemoryMailStore) -> None:
    """The store does not find a running mail, which only the lifecycle of this process knows."""
    await mails.accept([_entry(_mail(request_id="r1"))])
    mails.deferred("m1", Progress(pending=("ada@example.org",), attempts=1))
    assert await mails.get("shop", "m1") is None
    assert await mails.cancel("shop", "m1") is None


async def test_settled_mails_are_forgotten_after_their_time(mails: MemoryMailStore, clock: Clock) -> None:
    """A settled mail is found until its time is over and not after it, without a sweep in between."""
    mails.settle(_settled(_mail(), clock.time))
    clock.time += REMEMBER_SECONDS - 1
    assert await mails.get("shop", "m1") is not None
    clock.time += 1
    assert await mails.get("shop", "m1") is None


async def test_settled_mails_are_bounded_in_number(mails: MemoryMailStore) -> None:
    """The store drops the oldest settled mails once there are more than `remember_count`."""
    for number in range(REMEMBER_COUNT + 2):
        mails.settle(_settled(_mail(f"m{number}")))
    found = [await mails.get("shop", f"m{number}") is not None for number in range(REMEMBER_COUNT + 2)]
    assert found == [False, False, *[True] * REMEMBER_COUNT]


async def test_the_garbage_collector_does_not_look_at_settled_mails(clock: Clock) -> None:
    """The garbage collector tracks neither settled mails nor their request ids."""
    store = MemoryMailStore(clock, remember_seconds=3600, remember_count=10_000)
    gc.collect()
    before = len(gc.get_objects())
    for number in range(5000):
        await store.claim(Request("shop", f"r{number}", b"f"), f"m{number}")
        store.settle(_settled(_mail(f"m{number}", request_id=f"r{number}")))
    gc.collect()
    assert len(gc.get_objects()) < before + 1000


# Promises of a shared store that a store in memory does not make.


async def test_nothing_arrives(mails: MemoryMailStore) -> None:
    """A store in memory is not durable, so no mail of an earlier process arrives."""
    assert not mails.durable
    await mails.accept([_entry(_mail())])
    assert [entries async for entries in mails.arrivals()] == []


async def test_the_clock_is_the_stores(mails: MemoryMailStore, clock: Clock) -> None:
    """`now` is on the clock that decides when mails are forgotten."""
    clock.time += 5
    assert mails.now() == clock.time


async def test_the_store_has_both_on_one_clock(clock: Clock) -> None:
    """Codes and mails share the clock; opening and closing it wait for nothing, and its repr counts."""
    store = MemoryStore(clock, remember_count=1)
    await store.open()
    assert store.challenges.now() == store.mails.now() == clock.time
    await store.mails.claim(R1, "m1")
    store.mails.settle(_settled(_mail("m2")))
    await store.close()
    assert repr(store) == "<MemoryStore <MemoryChallengeStore 0 records>, <MemoryMailStore 1 settled, 1 request ids>>"


async def test_without_a_limit_in_time_mails_are_remembered_by_number(clock: Clock) -> None:
    """By default only their number limits how long settled mails are remembered."""
    store = MemoryStore(clock, remember_count=10)
    store.mails.settle(_settled(_mail(), clock.time))
    clock.time += 365 * DAY
    assert await store.mails.get("shop", "m1") is not None


async def test_settled_mails_are_forgotten_before_request_ids(clock: Clock) -> None:
    """Where memory is short settled mails go first: without its request id a repeated request is sent again."""
    store = MemoryMailStore(clock, remember_seconds=3600, remember_count=1000)
    for number in range(3):
        await store.claim(Request("shop", f"r{number}", b"f"), f"m{number}")
        store.settle(_settled(_mail(f"m{number}", request_id=f"r{number}"), 1000.0 + number))
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
    store = MemoryMailStore(clock, remember_seconds=3600, remember_count=1_000_000, remember_octets=1_000_000)
    results = tuple(RecipientResult(f"person-{number}@example.org", 250, "2.0.0", "ok") for number in range(100))
    for number in range(1000):
        mail = replace(_mail(f"m{number}", request_id=f"r{number}"), recipients=results, settle_time=1000.0 + number)
        await store.claim(Request("shop", f"r{number}", b"f"), mail.id)
        store.settle(mail)
        assert store.octets <= 1_020_000
    assert await store.get("shop", "m999") is not None
    assert await store.get("shop", "m0") is None
