"""Held here: how long a relay that fails is left alone, and what counts as being well again."""

import pytest

from otpmail.smtp.breaker import Breaker


@pytest.fixture
def breaker() -> Breaker:
    """Return a breaker whose jitter is none."""
    return Breaker(lambda: 0.5)


def test_a_breaker_starts_closed(breaker: Breaker) -> None:
    """Nobody waits before the first failure."""
    assert breaker.closed
    assert breaker.next_try == 0.0


def test_each_failure_doubles_the_wait_up_to_the_most(breaker: Breaker) -> None:
    """The wait is first, then twice as long each time, never more than the most."""
    waits = []
    now = 100.0
    for _ in range(5):
        breaker.failed(now, first=1.0, most=6.0)
        waits.append(breaker.next_try - now)
        now = breaker.next_try
    assert waits == [1.0, 2.0, 4.0, 6.0, 6.0]


def test_failures_of_dials_under_way_together_are_one(breaker: Breaker) -> None:
    """Five workers that lose the same relay at once do not make it wait five times doubled."""
    for _ in range(5):
        breaker.failed(100.0, first=1.0, most=60.0)
    assert breaker.failures == 1
    assert breaker.next_try == 101.0


@pytest.mark.parametrize(("random", "wait"), [(0.0, 7.5), (1.0, 12.5)])
def test_the_wait_is_spread(random: float, wait: float) -> None:
    """Jitter is a quarter of the wait, either way."""
    breaker = Breaker(lambda: random)
    breaker.failed(0.0, first=10.0, most=60.0)
    assert breaker.next_try == wait


def test_a_mail_taken_closes_it(breaker: Breaker) -> None:
    """A relay that takes a mail is well."""
    breaker.failed(0.0, first=1.0, most=60.0)
    breaker.took_mail()
    assert breaker.closed
    assert breaker.next_try == 0.0


def test_a_sign_in_alone_does_not_close_it(breaker: Breaker) -> None:
    """A relay that signs everybody in and then hangs up is not well."""
    breaker.failed(0.0, first=1.0, most=60.0)
    breaker.signed_in()
    assert not breaker.closed


def test_only_a_sign_in_closes_what_a_refused_sign_in_opened(breaker: Breaker) -> None:
    """A mail on a connection that was signed in before the password changed proves nothing of the password."""
    breaker.failed(0.0, first=60.0, most=900.0, over_sign_in=True)
    breaker.took_mail()
    assert not breaker.closed
    breaker.signed_in()
    assert breaker.closed


def test_a_refused_sign_in_counts_though_a_lesser_wait_is_running(breaker: Breaker) -> None:
    """A lock-out is worse than a connection that failed: its longer wait is taken at once."""
    breaker.failed(0.0, first=1.0, most=60.0)
    breaker.failed(0.5, first=60.0, most=900.0, over_sign_in=True)
    assert breaker.next_try == 60.5
    breaker.failed(1.0, first=1.0, most=60.0)
    assert breaker.next_try == 60.5
