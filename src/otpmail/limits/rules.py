"""How many of something may happen in any hour and in any day. Pure: the times are passed in.

The limits of one address are logs of times (`Windows`). Those that count over many addresses are counts by stretches of
five minutes, or of two hours where a limit is one of a day. They take as little room for a million as for ten.
"""

from collections.abc import Sequence
from dataclasses import field

from otpmail.model import DAY, HOUR, PARTS, STRETCH, STRETCHES, Counts
from otpmail.values import frozen


@frozen()
class Windows:
    """At most `per_hour` in any hour and `per_day` in any day, by a log of the times.

    A log is exact where a leaky bucket (GCRA) lets twice as many through in its first window: no 31st guess passes in
    a day. The oldest time comes first. A log that others with higher limits share keeps `kept` times at least.
    """

    per_hour: int
    per_day: int
    kept: int = field(default=0, repr=False, compare=False)
    most: int = field(init=False, repr=False, compare=False)
    """How many times a log needs."""

    fewest: int = field(init=False, repr=False, compare=False)
    """With how many times in a log one more may be refused, at least."""

    def __post_init__(self) -> None:
        """Set what a log needs once, rather than for each mail."""
        object.__setattr__(self, "most", max(self.per_hour, self.per_day, self.kept))
        object.__setattr__(self, "fewest", min(self.per_hour, self.per_day))

    def free_at(self, times: Sequence[float]) -> float:
        """Return when one more may happen, in the past or 0.0 where it may now."""
        count = len(times)
        hourly = times[count - self.per_hour] + HOUR if count >= self.per_hour else 0.0
        daily = times[count - self.per_day] + DAY if count >= self.per_day else 0.0
        return max(hourly, daily)

    def is_daily(self, times: Sequence[float]) -> bool:
        """Whether it is the limit of a day that lets nothing happen for longest."""
        count = len(times)
        if count < self.per_day:
            return False
        return count < self.per_hour or times[count - self.per_day] + DAY > times[count - self.per_hour] + HOUR


def stretch_of(span: int) -> int:
    """Return how many seconds a count has, where a limit is one of `span` seconds."""
    return span // PARTS


def recent_counts(counts: Counts, now: float, stretch: int = STRETCH) -> Counts:
    """Return the counts of which a part may be less than an hour old, or a day with the stretches of that."""
    first = int(now // stretch) - STRETCHES
    return tuple([pair for pair in counts if pair[0] > first])


def total_of(counts: Counts) -> int:
    """Return how often it happened."""
    return sum([count for _, count in counts])


def counts_free_at(counts: Counts, most: int, stretch: int = STRETCH) -> float:
    """Return when one more may happen so that no hour has more than `most`; 0.0 where it may now.

    A stretch counts as a whole until all of it is an hour old, so a place is free up to five minutes late. With the
    stretches of a day it is up to two hours.
    """
    spare = most - 1 - total_of(counts)
    if spare >= 0:
        return 0.0
    for number, count in counts:
        spare += count
        if spare >= 0:
            return float((number + STRETCHES) * stretch)
    return counts_end(counts, stretch)


def counts_end(counts: Counts, stretch: int = STRETCH) -> float:
    """Return since when the counts say nothing."""
    return float((counts[-1][0] + STRETCHES) * stretch) if counts else 0.0


def with_one(counts: Counts, now: float, stretch: int = STRETCH) -> Counts:
    """Return the counts with one more. A clock that was set back adds to the latest stretch."""
    number = int(now // stretch)
    if counts and counts[-1][0] >= number:
        latest, count = counts[-1]
        return (*counts[:-1], (latest, count + 1))
    return (*counts, (number, 1))


def without_one(counts: Counts, then: float, stretch: int = STRETCH) -> Counts:
    """Return the counts without one that was counted `then`, or at the latest if a clock was set back.

    One from before all that the counts still say has left them already.
    """
    number = int(then // stretch)
    place = len(counts) - 1
    if place >= 0 and counts[place][0] - number >= STRETCHES:
        return counts
    for at, (known, _) in enumerate(counts):
        if known == number:
            place = at
    if place < 0:
        return counts
    known, count = counts[place]
    rest = ((known, count - 1),) if count > 1 else ()
    return (*counts[:place], *rest, *counts[place + 1 :])


def level_reached(before: int, most: int) -> int:
    """Return which of 50 and 80 percent of `most` one more reaches, 0 for neither."""
    for percent in (80, 50):
        needed = -(-most * percent // 100)
        if before + 1 == needed:
            return percent
    return 0
