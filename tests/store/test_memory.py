"""The rules of every store, as one suite: a further store joins as a parameter of the two fixtures."""

import asyncio
import gc
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail.errors import InvalidArgument
from otpmail.model import Challenge, CodeRecord, IssuedCode, Mail, MailState, RecipientResult
from otpmail.store.base import ChallengeStore, MailStore
from otpmail.store.memory import MemoryChallengeStore, MemoryMailStore

REMEMBER_SECONDS = 3600.0
REMEMBER_COUNT = 5
DAY = 24 * 3600.0


class Clock:
    """A clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.time


@pytest.fixture
def clock() -> Clock:
    """The clock of the store under test."""
    return Clock()


@pytest.fixture(params=[pytest.param(MemoryChallengeStore, id="memory")])
def challenges(request: pytest.FixtureRequest, clock: Clock) -> ChallengeStore:
    """A store of challenges; each must pass everything below."""
    make: Callable[[Clock], ChallengeStore] = request.param
    return make(clock)


@pytest.fixture(params=[pytest.param(MemoryMailStore, id="memory")])
def mails(request: pytest.FixtureRequest, clock: Clock) -> MailStore:
    """A store of mails; each must pass everything below."""
    make: Callable[..., MailStore] = request.param
    return make(clock, remember_seconds=REMEMBER_SECONDS, remember_count=REMEMBER_COUNT)


def _standing(expires: float = 1120.0, attempts: int = 0) -> CodeRecord:
    return CodeRecord(Challenge(bytes(range(16)), "k1", expires, attempts), (999.5,), 1030.0)


async def _read(store: ChallengeStore, key: bytes) -> CodeRecord | None:
    return await store.update(key, lambda standing: (standing, standing))


async def _write(store: ChallengeStore, key: bytes, standing: CodeRecord | None) -> None:
    await store.update(key, lambda _: (standing, None))


async def test_a_record_is_what_the_rule_made_of_it(challenges: ChallengeStore) -> None:
    """An unknown key is None; the record that a rule returns is kept whole, and None removes it."""
    assert await _read(challenges, b"a") is None
    await _write(challenges, b"a", _standing())
    assert await _read(challenges, b"a") == _standing()
    await _write(challenges, b"a", None)
    assert await _read(challenges, b"a") is None
    await _write(challenges, b"a", None)


async def test_keys_are_apart(challenges: ChallengeStore) -> None:
    """A rule sees and changes the record of its own key alone."""
    for number in range(50):
        await _write(challenges, number.to_bytes(16), _standing(attempts=number))
    await _write(challenges, (7).to_bytes(16), None)
    found = [await _read(challenges, number.to_bytes(16)) for number in range(50)]
    assert found == [None if number == 7 else _standing(attempts=number) for number in range(50)]


async def test_the_answer_is_what_the_rule_said(challenges: ChallengeStore) -> None:
    """`update` hands the rule's second value through."""
    said = object()
    assert await challenges.update(b"a", lambda standing: (standing, said)) is said


@pytest.mark.parametrize("before", [None, _standing()])
async def test_a_rule_that_raises_changes_nothing(challenges: ChallengeStore, before: CodeRecord | None) -> None:
    """The record stays as it was, and the store goes on working."""
    await _write(challenges, b"a", before)

    def refuse(_: CodeRecord | None) -> tuple[CodeRecord | None, None]:
        raise InvalidArgument("email", "no")

    with pytest.raises(InvalidArgument):
        await challenges.update(b"a", refuse)
    assert await _read(challenges, b"a") == before


async def test_every_update_sees_those_before_it(challenges: ChallengeStore) -> None:
    """A hundred updates at the same moment are applied one after another: none is lost."""
    await _write(challenges, b"a", _standing())

    def count(standing: CodeRecord | None) -> tuple[CodeRecord | None, int]:
        assert standing is not None
        assert standing.challenge is not None
        counted = replace(standing.challenge, attempts=standing.challenge.attempts + 1)
        return replace(standing, challenge=counted), counted.attempts

    said = await asyncio.gather(*(challenges.update(b"a", count) for _ in range(100)))
    assert sorted(said) == list(range(1, 101))


async def test_the_clock_is_the_stores(challenges: ChallengeStore, clock: Clock) -> None:
    """`now` is read on the clock on which records expire."""
    before = challenges.now()
    clock.time += 5
    assert challenges.now() - before == pytest.approx(5)


async def test_a_sweep_drops_what_has_expired_and_nothing_else(clock: Clock) -> None:
    """Records that still say something stay, to the last moment; the sweep says how many it dropped."""
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
    """The store is swept in slices, and other tasks run between them."""
    store = MemoryChallengeStore(clock)
    for number in range(2000):
        await _write(store, number.to_bytes(16), _standing())
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


async def test_sweeping_forever_ends_when_cancelled() -> None:
    """The sweeper's task is ended by cancelling it, nothing else."""
    swept = asyncio.Event()

    def clock() -> float:
        """Say that the store has asked for the time, as it does at each sweep."""
        swept.set()
        return 0.0

    task = asyncio.create_task(MemoryChallengeStore(clock).sweep_forever(0.0))
    await swept.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_reprs_are_counts(clock: Clock) -> None:
    """A store's repr counts its records and shows none of them."""
    challenges = MemoryChallengeStore(clock)
    await _write(challenges, b"a", _standing())
    assert repr(challenges) == "<MemoryChallengeStore 1 records>"
    mails = MemoryMailStore(clock, remember_seconds=1, remember_count=1)
    mails.settle(_mail())
    await mails.add(_mail(request_id="r"), b"f")
    assert repr(mails) == "<MemoryMailStore 1 settled, 1 request ids>"


def _mail(mail_id: str = "m1", *, caller: str = "shop", request_id: str = "") -> Mail:
    return Mail(mail_id, caller, f"<{mail_id}@example.org>", 1.0, request_id)


def _settled(mail: Mail) -> Mail:
    results = (RecipientResult("ada@example.org", 250, "2.0.0", "ok"),)
    return replace(mail, state=MailState.RELAYED, recipients=results, attempts=1, settle_time=2.0)


async def test_a_request_id_is_kept_with_its_mail(mails: MailStore) -> None:
    """The first mail of a request id is kept; the next one gets it back, as accepted and then as it ended."""
    first = _mail("m1", request_id="r1")
    assert await mails.find("shop", "r1", b"f") is None
    assert await mails.add(first, b"f") is None
    assert await mails.add(_mail("m2", request_id="r1"), b"f") == first
    assert await mails.find("shop", "r1", b"f") == first
    mails.settle(_settled(first))
    assert await mails.find("shop", "r1", b"f") == _settled(first)


async def test_a_request_id_with_other_content_is_refused(mails: MailStore) -> None:
    """The same id for something else is InvalidArgument, naming request_id."""
    await mails.add(_mail(request_id="r1"), b"f")
    for again in (mails.find("shop", "r1", b"g"), mails.add(_mail("m2", request_id="r1"), b"g")):
        with pytest.raises(InvalidArgument) as caught:
            await again
        assert caught.value.field == "request_id"
    assert await mails.find("shop", "r1", b"f") == _mail(request_id="r1")


async def test_request_ids_are_each_callers_own(mails: MailStore) -> None:
    """The same request id of another caller is another id."""
    await mails.add(_mail(request_id="r1"), b"f")
    assert await mails.find("bank", "r1", b"other") is None
    assert await mails.add(_mail("m2", caller="bank", request_id="r1"), b"other") is None
    assert await mails.find("shop", "r1", b"f") == _mail(request_id="r1")


async def test_mails_without_a_request_id_are_never_the_same(mails: MailStore) -> None:
    """Mails with an empty request id are never taken for each other."""
    assert await mails.add(_mail("m1"), b"f") is None
    assert await mails.add(_mail("m2"), b"f") is None
    mails.settle(_settled(_mail("m1")))


async def test_request_ids_live_a_day(mails: MailStore, clock: Clock) -> None:
    """A retry within a day is known; after it, the id is free, unless its mail is still open."""
    mail = _mail(request_id="r1")
    await mails.add(mail, b"f")
    await mails.add(_mail("m2", request_id="open"), b"f")
    clock.time += 3600
    mails.settle(_settled(mail))
    clock.time += DAY - 3601
    assert await mails.find("shop", "r1", b"f") is not None
    clock.time += 1
    assert await mails.find("shop", "r1", b"other") is None
    assert await mails.find("shop", "open", b"f") is not None


@pytest.mark.parametrize("every", [600.0, 7.0])
async def test_a_trickle_is_remembered_for_its_whole_time(clock: Clock, every: float) -> None:
    """While there are fewer than the most, none goes before its time, however they come."""
    begun = clock.time
    store = MemoryMailStore(clock, remember_seconds=REMEMBER_SECONDS, remember_count=1_000_000)
    for number in range(round(1.5 * DAY / every)):
        mail = _mail(f"m{number}", request_id=f"r{number}")
        await store.add(mail, b"f")
        store.settle(_settled(mail))
        clock.time += every
        passed = clock.time - begun
        oldest = {seconds: max(0, int((passed - seconds) // every) + 1) for seconds in (DAY, REMEMBER_SECONDS)}
        assert await store.find("shop", f"r{oldest[DAY]}", b"f") is not None
        assert await store.get("shop", f"m{oldest[REMEMBER_SECONDS]}") is not None


async def test_a_settled_mail_is_its_callers(mails: MailStore) -> None:
    """A settled mail is found by its caller and id, and by no other caller."""
    mails.settle(_settled(_mail()))
    assert await mails.get("shop", "m1") == _settled(_mail())
    assert await mails.get("bank", "m1") is None
    assert await mails.get("shop", "m2") is None


async def test_settled_mails_are_forgotten_after_their_time(mails: MailStore, clock: Clock) -> None:
    """A settled mail is forgotten exactly after its time: expiry is checked at the read."""
    mails.settle(_settled(_mail()))
    clock.time += REMEMBER_SECONDS - 1
    assert await mails.get("shop", "m1") is not None
    clock.time += 1
    assert await mails.get("shop", "m1") is None


async def test_settled_mails_are_bounded_in_number(mails: MailStore) -> None:
    """The oldest settled mails are forgotten first."""
    for number in range(REMEMBER_COUNT + 2):
        mails.settle(_settled(_mail(f"m{number}")))
    found = [await mails.get("shop", f"m{number}") is not None for number in range(REMEMBER_COUNT + 2)]
    assert found == [False, False, *[True] * REMEMBER_COUNT]


_TIMES = st.floats(allow_nan=False, allow_infinity=False)


@given(
    challenge=st.none()
    | st.builds(Challenge, st.binary(min_size=16, max_size=16), st.text(max_size=40), _TIMES, st.integers(0, 100)),
    failures=st.lists(_TIMES, max_size=300).map(tuple),
    next_send=_TIMES,
)
async def test_any_record_is_kept_whole(
    challenge: Challenge | None, failures: tuple[float, ...], next_send: float
) -> None:
    """Any record is kept whole, to the last bit of a time, with up to OTP_FAILURES_PER_HOUR failures."""
    store, standing = MemoryChallengeStore(lambda: 0.0), CodeRecord(challenge, failures, next_send)
    await _write(store, b"a", standing)
    assert await _read(store, b"a") == standing


async def test_the_garbage_collector_does_not_look_at_records() -> None:
    """Neither records nor their dicts are tracked by the collector, which a million would block for long."""
    store = MemoryChallengeStore(lambda: 0.0)
    gc.collect()
    before = len(gc.get_objects())
    for number in range(5000):
        await _write(store, number.to_bytes(16), _standing())
    gc.collect()
    assert len(gc.get_objects()) < before + 200  # fewer than there are dicts


@given(
    st.builds(
        Mail,
        id=st.text(),
        caller=st.just("shop"),
        message_id=st.text(),
        create_time=_TIMES,
        request_id=st.text(),
        state=st.sampled_from([state for state in MailState if state.final]),
        recipients=st.lists(
            st.builds(RecipientResult, st.text(), st.integers(0, 599), st.text(), st.text()), max_size=5
        ).map(tuple),
        attempts=st.integers(0, 1000),
        settle_time=_TIMES,
        issued=st.none()
        | st.builds(
            IssuedCode,
            st.builds(Challenge, st.binary(max_size=16), st.text(), _TIMES, st.integers(0, 100)),
            _TIMES,
            _TIMES,
        ),
    )
)
async def test_any_settled_mail_is_kept_whole(mail: Mail) -> None:
    """A settled mail is found unchanged, by its id and by its request id."""
    store = MemoryMailStore(lambda: 0.0, remember_seconds=1, remember_count=10)
    await store.add(mail, b"f")
    store.settle(mail)
    assert await store.get("shop", mail.id) == mail
    assert not mail.request_id or await store.find("shop", mail.request_id, b"f") == mail


async def test_the_garbage_collector_does_not_look_at_settled_mails() -> None:
    """Neither settled mails nor their request ids are tracked by the collector."""
    store = MemoryMailStore(lambda: 0.0, remember_seconds=3600, remember_count=10_000)
    gc.collect()
    before = len(gc.get_objects())
    for number in range(5000):
        mail = _mail(f"m{number}", request_id=f"r{number}")
        await store.add(mail, b"f")
        store.settle(_settled(mail))
    gc.collect()
    assert len(gc.get_objects()) < before + 1000


async def test_what_is_remembered_is_bounded(clock: Clock) -> None:
    """Settled mails are bounded by number, at least three quarters of which are kept, and by time."""
    store = MemoryMailStore(clock, remember_seconds=100, remember_count=1000)
    for number in range(5000):
        store.settle(_settled(_mail(f"m{number}")))
        clock.time += 0.01
        assert number < 1000 or 750 <= len(store) <= 1000  # a slice of a quarter goes whole
    for number in range(100):
        store.settle(_settled(_mail(f"n{number}")))
        clock.time += 30
    assert len(store) <= 6
