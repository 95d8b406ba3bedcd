"""Code records of the stores that run the rules themselves: one step for each update, and a sweep."""

import asyncio

import pytest

from code_records import a_record, failed, spaced
from otpmail.code_record import CodeRecord
from otpmail.errors import InvalidArgument
from store.clocks import Clock
from store.conftest import Challenges


async def _read(store: Challenges, key: bytes) -> CodeRecord | None:
    return await store.update(key, lambda record: (record, record))


async def _write(store: Challenges, key: bytes, record: CodeRecord | None) -> None:
    await store.update(key, lambda _: (record, None))


async def test_a_record_is_what_the_rule_made_of_it(challenges: Challenges) -> None:
    """An unknown key is None. The rule's record is kept whole; None removes it."""
    assert await _read(challenges, b"a") is None
    await _write(challenges, b"a", a_record())
    assert await _read(challenges, b"a") == a_record()
    await _write(challenges, b"a", None)
    assert await _read(challenges, b"a") is None
    await _write(challenges, b"a", None)


async def test_keys_are_apart(challenges: Challenges) -> None:
    """A rule sees and changes the record of its own key alone."""
    for number in range(50):
        await _write(challenges, number.to_bytes(16), a_record(attempts=number))
    await _write(challenges, (7).to_bytes(16), None)
    found = [await _read(challenges, number.to_bytes(16)) for number in range(50)]
    assert found == [None if number == 7 else a_record(attempts=number) for number in range(50)]


async def test_the_answer_is_what_the_rule_returned(challenges: Challenges) -> None:
    """`update` hands the rule's second value through."""
    returned = object()
    assert await challenges.update(b"a", lambda record: (record, returned)) is returned


@pytest.mark.parametrize("before", [None, a_record()])
async def test_a_rule_that_raises_changes_nothing(challenges: Challenges, before: CodeRecord | None) -> None:
    """The record stays as it was, and the store goes on working."""
    await _write(challenges, b"a", before)

    def refuse(_: CodeRecord | None) -> tuple[CodeRecord | None, None]:
        raise InvalidArgument("email", "no")

    with pytest.raises(InvalidArgument):
        await challenges.update(b"a", refuse)
    assert await _read(challenges, b"a") == before


async def test_every_update_sees_those_before_it(challenges: Challenges) -> None:
    """A hundred updates at the same moment are applied one after another: none is lost."""
    await _write(challenges, b"a", a_record())

    def count(record: CodeRecord | None) -> tuple[CodeRecord | None, int]:
        assert record is not None
        [slot] = record.slots
        assert slot.challenge is not None
        counted = slot.challenge.attempts + 1
        return a_record(attempts=counted), counted

    returned = await asyncio.gather(*(challenges.update(b"a", count) for _ in range(100)))
    assert sorted(returned) == list(range(1, 101))


async def test_the_clock_is_the_stores(challenges: Challenges, clock: Clock) -> None:
    """`now` is read on the clock on which records expire."""
    before = challenges.now()
    clock.time += 5
    assert challenges.now() - before == pytest.approx(5)


async def test_a_sweep_keeps_failures_of_the_last_day(challenges: Challenges, clock: Clock) -> None:
    """A record whose code is gone still counts its failures, and still spaces mails."""
    await _write(challenges, b"failed", failed(1000))
    await _write(challenges, b"spaced", spaced(1030.0))
    clock.time = 1031.0
    assert await challenges.sweep() == 1
    clock.time = 1000.0 + 86_400.0 - 0.1
    assert await challenges.sweep() == 0
    clock.time += 0.1
    assert await challenges.sweep() == 1
