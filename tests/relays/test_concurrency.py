"""The number of connections that a relay is given: how refusals lower it, and how it rises again. No loop, no clock."""

from math import inf

import pytest

from otpmail.relays.concurrency import Concurrency


@pytest.fixture
def five() -> Concurrency:
    """Return the limit of a relay for five workers that all have a connection; one more is tried each minute."""
    concurrency = Concurrency(5, review=60.0, review_most=200.0)
    for _ in range(5):
        concurrency.dialled()
    return concurrency


def _refuse(concurrency: Concurrency, now: float, times: int = 1) -> int | None:
    for _ in range(times):
        concurrency.refused(now)
    for _ in range(times):
        concurrency.closed(now, refused=True)
    return concurrency.limit


def test_nothing_is_full_before_a_refusal(five: Concurrency) -> None:
    """Any number of connections may be dialled before the relay has refused one."""
    five.dialled()
    assert not five.is_full(0.0)
    assert (five.limit, five.present, five.free_at()) == (None, 5, -inf)


@pytest.mark.parametrize("taken", [1, 2, 3, 4])
def test_refusals_that_come_together_find_the_number(five: Concurrency, taken: int) -> None:
    """A relay that refuses some of five at once is given as many as are left."""
    assert _refuse(five, 10.0, 5 - taken) == taken
    assert five.is_full(10.0)
    assert five.free_at() == 70.0


def test_one_connection_is_always_given(five: Concurrency) -> None:
    """A relay that refuses all is given one connection, and its breaker decides when that is dialled."""
    assert _refuse(five, 10.0, 5) == 1
    assert not five.is_full(10.0)


def test_one_more_is_tried_each_minute(five: Concurrency) -> None:
    """The number rises by one a minute, as far as connections are wanted, until it is of no effect."""
    _refuse(five, 0.0, 2)
    assert five.is_full(59.9)
    for minute in range(1, 8):
        assert not five.is_full(60.0 * minute)
        five.dialled()
        if minute < 7:
            assert five.is_full(60.0 * minute + 59.9)
    assert not five.is_full(60.0 * 8)
    assert five.limit is None


def test_a_try_that_is_refused_makes_the_next_one_later(five: Concurrency) -> None:
    """The wait doubles with each refused try, up to its maximum, and a try that lasts makes it short again."""
    _refuse(five, 0.0, 2)
    now = 0.0
    for wait in (60.0, 120.0, 200.0, 200.0):
        assert five.is_full(now + wait - 0.1)
        now += wait
        assert not five.is_full(now)
        five.dialled()
        assert _refuse(five, now) == 3
    now += 200.0
    assert not five.is_full(now)
    five.dialled()
    assert not five.is_full(now + 200.0)
    assert five.free_at() == -inf
    assert five.known == 4


def test_a_refusal_right_after_a_close_is_asked_about_again(five: Concurrency) -> None:
    """The relay may still count a connection that we closed just now, so the number is tried again after a second."""
    _refuse(five, 0.0, 2)
    five.closed(10.0)
    five.dialled()
    assert _refuse(five, 10.2) == 2
    assert five.known == 3
    assert five.is_full(11.1)
    assert not five.is_full(11.2)
    assert five.limit == 3


def test_a_closed_connection_frees_its_place(five: Concurrency) -> None:
    """A connection that ends makes room for the next one at once."""
    _refuse(five, 0.0, 2)
    assert not five.has_place
    five.closed(5.0)
    assert five.has_place
    assert not five.is_full(5.0)
