"""When a mail is tried again."""

import pytest

from otpmail.delivery.retry import JITTER, SCHEDULE, delay


@pytest.mark.parametrize("attempt", range(1, len(SCHEDULE) + 3))
def test_a_delay_is_its_place_in_the_schedule(attempt: int) -> None:
    """Without luck either way a delay is the table's; past its end, the last one again."""
    assert delay(attempt, lambda: 0.5) == pytest.approx(SCHEDULE[min(attempt, len(SCHEDULE)) - 1])


def test_jitter_spreads_both_ways() -> None:
    """Mails that failed together come back apart, but never much sooner or later than the table says."""
    assert delay(3, lambda: 0.0) == pytest.approx(SCHEDULE[2] * (1 - JITTER))
    assert delay(3, lambda: 1.0) == pytest.approx(SCHEDULE[2] * (1 + JITTER))


def test_the_schedule_grows() -> None:
    """A code is worth nothing late, so the first tries are soon; a relay in trouble is asked ever less often."""
    assert list(SCHEDULE) == sorted(SCHEDULE)
    assert SCHEDULE[0] <= 5
    assert SCHEDULE[-1] >= 1800
