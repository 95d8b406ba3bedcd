"""EMAIL_RATE: how mails are srate_limitd."""

import pytest

from otpmail.relays.rate_limit import RateLimit


def _sent(rate_limit: RateLimit, seconds: float, step: float = 0.001) -> int:
    """How many mails go in that time when a worker looks every `step` seconds."""
    sent = 0
    for tick in range(round(seconds / step)):
        now = 100 + tick * step
        while not rate_limit.wait(now):
            rate_limit.take(now)
            sent += 1
    return sent


def test_without_a_rate_no_mail_waits() -> None:
    """There is no wait without a rate."""
    rate_limit = RateLimit(None)
    for _ in range(1000):
        rate_limit.take(5.0)
    assert rate_limit.wait(5.0) == 0


@pytest.mark.parametrize("rate", [0.5, 3, 40, 700, 5000])
def test_the_rate_is_kept_and_reached(rate: float) -> None:
    """Over ten seconds as many mails go as the rate says, and at most the burst of 50 ms more."""
    allowed = rate * 10
    assert allowed - 1 <= _sent(RateLimit(rate), 10) <= allowed + max(1, rate * 0.05) + 1


def test_an_idle_hour_saves_up_no_burst() -> None:
    """Slots that were not used are not made up for later."""
    rate_limit = RateLimit(10)
    rate_limit.take(0.0)
    for _ in range(2):
        assert rate_limit.wait(3600.0) == 0
        rate_limit.take(3600.0)
        if rate_limit.wait(3600.0):
            break
    assert 0 < rate_limit.wait(3600.0) <= 0.1
