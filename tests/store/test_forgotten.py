"""Whom to forget: what they take of memory and of the loop, and how many a caller may have."""

import tracemalloc
from collections.abc import Sequence
from math import inf

import pytest

from cost import seconds_of
from otpmail.errors import LimitExceeded
from otpmail.store.base import MailStore
from otpmail.store.erasing import person_of
from otpmail.store.forgotten import Forgotten, Span, owner_of
from store.clocks import Clock


def _person(number: int) -> bytes:
    return person_of("shop", f"person{number}@example.org")


def _names(person: bytes) -> Sequence[bytes]:
    return (person,)


def _octets(mails: MailStore) -> int:
    octets: int = mails.octets  # type: ignore[attr-defined]
    return octets


def _filled(count: int, *, most: int = 10**9) -> Forgotten:
    forgotten = Forgotten(_names, most=most)
    for number in range(count):
        forgotten.add(_person(number), Span(float(number), number + 1e6, owner_of("shop")))
    return forgotten


def test_a_further_person_takes_as_long_with_many() -> None:
    """A person is added in place: with 50,000 of them it takes as long as with a few."""
    few, many = _filled(10), _filled(50_000)
    persons = [_person(number) for number in range(50_000, 50_200)]

    def add(forgotten: Forgotten) -> None:
        for person in persons:
            forgotten.add(person, Span(60_000.0, 2e6, owner_of("shop")))

    took, bound = seconds_of(lambda: add(many)), seconds_of(lambda: add(few))
    assert took < 20 * bound + 0.02  # it was 2,000 times as long when each addition copied all
    assert many.latest == 60_000.0


def test_the_memory_of_persons_is_counted() -> None:
    """The octets counted for a person are about those that it takes."""
    tracemalloc.start()
    try:
        forgotten = _filled(10_000)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken / 1.5 < forgotten.octets < taken * 1.5


def test_those_who_have_ended_give_way_to_others() -> None:
    """A person whose mails have all settled is dropped when others come, without a sweep."""
    forgotten = _filled(50)
    forgotten.add(b"late", Span(3e6, 4e6, owner_of("shop")))
    assert repr(forgotten) == "<Forgotten 1 persons>"


async def test_a_sweep_drops_those_who_have_ended() -> None:
    """A sweep drops those whose time is over, in whatever order they came."""
    forgotten = Forgotten()
    for number in range(3000):
        forgotten.put(_person(number), Span(0.0, float(number % 2), owner_of("shop")))
    await forgotten.sweep(0.0)
    assert repr(forgotten) == "<Forgotten 1500 persons>"
    await forgotten.sweep(1.0)
    assert (repr(forgotten), forgotten.octets, forgotten.latest) == ("<Forgotten 0 persons>", 0, -inf)


def test_a_later_span_is_not_undone() -> None:
    """An answer of the store from before a person was forgotten again changes nothing."""
    forgotten = Forgotten()
    forgotten.put(b"ada", Span(20.0, 30.0))
    forgotten.put(b"ada", Span(10.0, 15.0))
    assert forgotten._spans[b"ada"] == Span(20.0, 30.0)


def test_a_caller_has_so_many_persons() -> None:
    """A caller with too many persons is refused, also after it has asked again for one; others are not."""
    forgotten = _filled(10, most=10)
    forgotten.add(_person(3), Span(20.0, 2e6, owner_of("shop")))
    with pytest.raises(LimitExceeded, match="10 persons whom this caller has forgotten") as refused:
        forgotten.add(b"further", Span(21.0, 2e6, owner_of("shop")))
    assert (refused.value.subject, refused.value.setting) == ("caller", "forgotten_persons")
    forgotten.add(b"further", Span(21.0, 2e6, owner_of("bank")))
    forgotten.add(b"another", Span(1.5e6, 3e6, owner_of("shop")))  # the first ones have ended


async def test_every_store_bounds_the_persons_of_a_caller(mails: MailStore, clock: Clock) -> None:
    """Each store refuses a further person of a caller with too many, and counts their memory."""
    mails._forgotten._most = 3  # type: ignore[attr-defined]
    before = _octets(mails)
    for number in range(3):
        await mails.begin_forgetting("shop", _person(number), mails.now() + 1000)
    assert _octets(mails) > before
    with pytest.raises(LimitExceeded):
        await mails.begin_forgetting("shop", _person(3), mails.now() + 1000)
    await mails.begin_forgetting("bank", person_of("bank", "ada@example.org"), mails.now() + 1000)
    clock.time += 1001
    await mails.begin_forgetting("shop", _person(3), mails.now() + 1000)
