"""The schedule of a mail's retries."""

import pytest

from otpmail.delivery.retry import SCHEDULE, delay


@pytest.mark.parametrize("attempt", range(1, len(SCHEDULE) + 3))
def test_a_delay_is_its_place_in_the_schedule(attempt: int) -> None:
    """At the middle draw a delay is the table's; after the end of the table the last one repeats."""
    assert delay(attempt, lambda: 0.5) == pytest.approx(SCHEDULE[min(attempt, len(SCHEDULE)) - 1])


def test_a_delay_has_jitter() -> None:
    """Mails that failed together come back within a fifth of the delay before and after it."""
    assert delay(3, lambda: 0.0) == pytest.approx(SCHEDULE[2] * 0.8)
    assert delay(3, lambda: 1.0) == pytest.approx(SCHEDULE[2] * 1.2)


def test_the_schedule_grows() -> None:
    """The first retry comes soon, since a late code is worth nothing; each further wait is no shorter."""
    assert list(SCHEDULE) == sorted(SCHEDULE)
    assert SCHEDULE[0] <= 5
    assert SCHEDULE[-1] >= 1800
