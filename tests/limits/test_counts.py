"""Counts by stretches of five minutes: no hour has more than its limit, whatever the times."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail.limits.rules import (
    counts_end,
    counts_free_at,
    level_reached,
    recent_counts,
    total_of,
    with_one,
    without_one,
)
from otpmail.model import HOUR, STRETCH, Counts

_STEPS = st.lists(st.floats(0.0, 1500.0), max_size=60)


def _admitted(steps: Sequence[float], most: int) -> list[float]:
    """Return the times that a limit lets through, of those after so many seconds each."""
    counts: Counts = ()
    now, times = 1e9, []
    for step in steps:
        now += step
        counts = recent_counts(counts, now)
        if counts_free_at(counts, most) <= now:
            counts = with_one(counts, now)
            times.append(now)
    return times


@given(_STEPS, st.integers(1, 7))
def test_no_hour_has_more_than_its_limit(steps: list[float], most: int) -> None:
    """Any hour has at most as many as the limit allows."""
    times = _admitted(steps, most)
    assert all(later - earlier >= HOUR for earlier, later in zip(times, times[most:], strict=False))


@given(_STEPS, st.integers(1, 7))
def test_a_place_is_free_when_it_is_said_to_be(steps: list[float], most: int) -> None:
    """One more may happen at the very time that a refusal names, which is 5 minutes after an hour at the latest."""
    counts: Counts = ()
    now = 1e9
    times: list[float] = []
    for step in steps:
        now += step
        counts = recent_counts(counts, now)
        free = counts_free_at(counts, most)
        if free <= now:
            counts, times = with_one(counts, now), [*times, now]
            continue
        assert free <= times[-most] + HOUR + STRETCH
        assert counts_free_at(recent_counts(counts, free), most) <= free
        assert counts_free_at(recent_counts(counts, free - 1), most) == free


@given(_STEPS)
def test_counts_stay_small(steps: list[float]) -> None:
    """A count takes no more room the more often something happens: an hour touches 13 stretches."""
    counts: Counts = ()
    now = 1e9
    for step in steps:
        now += step
        counts = with_one(recent_counts(counts, now), now)
        assert len(counts) <= HOUR // STRETCH + 1
        assert recent_counts(counts, counts_end(counts)) == ()


@given(_STEPS, st.integers(0, 59))
def test_one_that_is_taken_back_counts_no_more(steps: list[float], place: int) -> None:
    """Counts without one are those that had never had it, as long as its stretch is remembered."""
    now, times = 1e9, []
    for step in steps[:12]:
        now += step
        times.append(now)
    if not times:
        return
    gone = times[place % len(times)]
    if now - gone > HOUR:
        return
    with_it: Counts = ()
    without_it: Counts = ()
    for time in times:
        with_it = recent_counts(with_one(with_it, time), now)
        if time != gone:
            without_it = recent_counts(with_one(without_it, time), now)
    times_gone = times.count(gone)
    for _ in range(times_gone):
        with_it = without_one(with_it, gone)
    assert with_it == without_it


def test_a_clock_that_falls_back_adds_to_the_latest_stretch() -> None:
    """The stretches stay in order on a clock that was set back, so that no count is lost."""
    counts = with_one(with_one((), 10_000.0), 9_000.0)
    assert counts == ((33, 2),)
    assert total_of(counts) == 2
    assert without_one((), 9_000.0) == ()


@pytest.mark.parametrize(
    ("before", "most", "level"),
    [(3, 10, 0), (4, 10, 50), (5, 10, 0), (7, 10, 80), (8, 10, 0), (0, 1, 80), (0, 3, 0), (1, 3, 50), (2, 3, 80)],
)
def test_levels_of_a_limit(before: int, most: int, level: int) -> None:
    """One more reaches half or four fifths of a limit once; the higher level counts where it reaches both."""
    assert level_reached(before, most) == level
