"""How many of something may happen in any hour and in any day. Pure: the times are passed in."""

from collections.abc import Sequence
from dataclasses import field

from otpmail.model import DAY, HOUR
from otpmail.values import frozen


@frozen()
class Windows:
    """At most `per_hour` in any hour and `per_day` in any day, by a log of the times.

    A log is exact where a leaky bucket (GCRA) lets twice as many through in its first window: no 31st guess passes in
    a day. The oldest time comes first.
    """

    per_hour: int
    per_day: int
    most: int = field(init=False, repr=False, compare=False)
    """How many times a log needs."""

    def __post_init__(self) -> None:
        """Set what a log needs once, rather than for each mail."""
        object.__setattr__(self, "most", max(self.per_hour, self.per_day))

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
