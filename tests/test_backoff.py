"""Delays between attempts: their bounds, their growth, and what jitter does to them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail import backoff

SECONDS = st.floats(min_value=1e-6, max_value=1e9)
SHARE = st.floats(min_value=0, max_value=1)
RANDOM = st.floats(min_value=0, max_value=1, exclude_max=True)
FAILURES = st.integers(min_value=1, max_value=100_000)


@given(FAILURES, SECONDS, SECONDS)
def test_a_delay_stays_between_the_first_and_the_cap(failures: int, first: float, cap: float) -> None:
    """No delay is shorter than the first one or longer than the cap; a cap below the first one wins."""
    delay = backoff.exponential(failures, first=first, cap=cap)
    assert min(first, cap) <= delay <= cap


@given(FAILURES, SECONDS, SECONDS)
def test_a_further_failure_doubles_the_delay(failures: int, first: float, cap: float) -> None:
    """The next delay is twice as long, or the cap; it is never shorter."""
    delay, following = (backoff.exponential(n, first=first, cap=cap) for n in (failures, failures + 1))
    assert following == min(cap, 2 * delay)


@given(SECONDS, SECONDS)
def test_the_first_delay_is_the_first(first: float, cap: float) -> None:
    """After one failure the wait is `first`, unless the cap is shorter."""
    assert backoff.exponential(1, first=first, cap=cap) == min(first, cap)


@given(SECONDS, SECONDS)
def test_the_cap_is_reached(first: float, cap: float) -> None:
    """After enough failures each delay is the cap, however many follow."""
    enough = 2 + max(0, math.ceil(math.log2(cap / first)))
    for failures in (enough, enough + 1, 10**20):
        assert backoff.exponential(failures, first=first, cap=cap) == cap


@given(SECONDS, SHARE, RANDOM)
def test_jitter_stays_in_its_share(seconds: float, share: float, random: float) -> None:
    """A delay with jitter differs from the one without by at most the share, in either direction."""
    delay = backoff.jittered(seconds, share, lambda: random)
    assert seconds * (1 - share) * (1 - 1e-9) <= delay <= seconds * (1 + share) * (1 + 1e-9)


@given(SECONDS, SHARE, RANDOM)
def test_jitter_is_even(seconds: float, share: float, random: float) -> None:
    """Two opposite draws make up for each other, so that the average wait is the one asked for."""
    low, high = (backoff.jittered(seconds, share, draw) for draw in (lambda: random, lambda: 1 - random))
    assert (low + high) / 2 == pytest.approx(seconds)


@given(SECONDS, st.floats(min_value=0.01, max_value=1), RANDOM, RANDOM)
def test_jitter_grows_with_the_draw(seconds: float, share: float, one: float, other: float) -> None:
    """A higher draw gives a wait that is no shorter, and a life that is no longer."""
    low, high = sorted((one, other))
    assert backoff.jittered(seconds, share, lambda: low) <= backoff.jittered(seconds, share, lambda: high)
    assert backoff.shortened(seconds, share, lambda: low) >= backoff.shortened(seconds, share, lambda: high)


@given(SECONDS, SHARE, RANDOM)
def test_what_is_shortened_is_never_exceeded(seconds: float, share: float, random: float) -> None:
    """The time is the longest allowed at the lowest draw, and shorter by less than the share at any other."""
    assert backoff.shortened(seconds, share, lambda: 0.0) == seconds
    assert seconds * (1 - share) * (1 - 1e-9) <= backoff.shortened(seconds, share, lambda: random) <= seconds
