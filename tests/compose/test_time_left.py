"""A time that is left, as a mail and the command tell it."""

import pytest

from otpmail.cli.output import spoken
from otpmail.compose.catalog import Templates
from otpmail.compose.time_left import in_units, whole_minutes

TIMES = Templates(None, default_locale="en").by_locale["en"]["code"].times
LIVES = [60, 120, 180, 300, 600, 900, 1800, 3600, 7200, 14_400, 86_400]


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("waited", [0.0, 0.02, 0.6, 1.4, 3.0, 4.9])
def test_the_mail_and_the_command_say_the_same(life: int, waited: float) -> None:
    """A command that has waited up to five seconds for the relay names the time of the mail, for each usual life."""
    assert TIMES.values(life)["valid_for"] == spoken(life - waited)


def test_every_time_is_near_the_truth() -> None:
    """In words a time is at most half a minute longer than it is, below two minutes five seconds."""
    units = {"second": 1, "minute": 60, "hour": 3600}
    for seconds in range(86_401):
        unit, number = in_units(seconds)
        assert number * units[unit] <= seconds + (5 if seconds < 120 else 30)
        assert whole_minutes(seconds) >= 1


def test_nothing_left() -> None:
    """A command may say that no time is left, also where a clock has gone back. A mail never does."""
    assert spoken(0.0) == spoken(-3.0) == "0 seconds"
    assert TIMES.values(0.0)["valid_for"] == "1 second"
