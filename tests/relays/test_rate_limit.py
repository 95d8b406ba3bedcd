"""How mails are spaced: by EMAIL_RATE, and by what the relay refuses as too fast."""

from itertools import pairwise

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


class Relay:
    """A relay that counts mails as Postfix's anvil does, and a sender that keeps to a RateLimit. Time is simulated."""

    def __init__(self, most: int, seconds: float, ceiling: float | None = None) -> None:
        self.limit = RateLimit(ceiling)
        self.taken = self.refused = 0
        self.now = 1000.0
        self._most, self._seconds = most, seconds
        self._window, self._counted = 0.0, 0

    def run(self, seconds: float, step: float = 0.01) -> None:
        """Send as many mails as the limit allows, with at most ten at once."""
        end = self.now + seconds
        while self.now < end:
            for _ in range(10):
                if self.limit.wait(self.now):
                    break
                self.limit.take(self.now)
                self._reply()
            self.now += step

    def _reply(self) -> None:
        if self.now >= self._window + self._seconds:
            self._window, self._counted = self.now, 0
        self._counted += 1
        if self._counted <= self._most:
            self.taken += 1
            self.limit.accepted(self.now)
        else:
            self.refused += 1
            self.limit.refused(self.now, recent=100.0, in_flight=0)


@pytest.mark.parametrize(("most", "seconds"), [(14, 1.0), (30, 60.0), (600, 60.0)])
def test_the_rate_settles_near_what_the_relay_takes(most: int, seconds: float) -> None:
    """In ten minutes the relay is sent two thirds of what it would take, and refuses few mails after the start."""
    relay = Relay(most, seconds)
    relay.run(5.0)
    before = relay.refused
    relay.run(595.0)
    assert relay.taken >= 0.66 * 600 * most / seconds
    assert relay.refused - before <= relay.taken // 4


def test_a_relay_that_takes_nothing_gets_few_mails() -> None:
    """Each refusal halves the rate, down to one mail a minute."""
    relay = Relay(0, 1.0)
    relay.run(600.0)
    assert relay.refused <= 50
    assert relay.limit.rate(relay.now) == pytest.approx(1 / 60)


def test_a_relay_that_counts_by_the_minute_is_tried_when_that_is_over() -> None:
    """The rate falls to a mail in five seconds at most until a minute has passed without an accepted mail."""
    relay = Relay(30, 60.0)
    relay.run(59.0)
    assert relay.taken == 30
    assert relay.refused <= 25
    relay.run(7.0)
    assert relay.taken > 30


def test_the_rate_recovers_step_by_step() -> None:
    """After the last refusal the rate grows evenly, and is unlimited at twice the rate of the first refusal."""
    limit = RateLimit(None)
    assert limit.refused(0.0, recent=100.0, in_flight=0)
    assert limit.rate(0.0) == 50.0
    limit.take(0.02)
    limit.accepted(0.1)
    rates = [limit.rate(0.1 + 10.0 * n) or 0.0 for n in range(1, 8)]
    steps = [after - before for before, after in pairwise(rates)]
    assert steps == pytest.approx([100 / 6] * 6)
    assert limit.rate(100.0) is None
    assert not limit.limited


def test_email_rate_is_the_ceiling() -> None:
    """The rate recovers to EMAIL_RATE and no further."""
    limit = RateLimit(40.0)
    assert limit.refused(0.0, recent=200.0, in_flight=0)
    assert limit.rate(0.0) == 20.0
    limit.take(0.1)
    limit.accepted(0.2)
    assert limit.rate(3600.0) == 40.0
    assert limit.limited
    assert not limit.lowered


def test_mails_that_were_in_flight_lower_it_once() -> None:
    """Refusals of mails that were sent before the rate was lowered are no news."""
    limit = RateLimit(None)
    assert limit.refused(0.0, recent=100.0, in_flight=80)
    assert not any(limit.refused(0.0, recent=100.0, in_flight=n) for n in range(40))
    limit.take(0.02)
    assert not any(limit.refused(0.3, recent=100.0, in_flight=n) for n in range(40))
    assert limit.refused(0.3, recent=100.0, in_flight=0)
    assert limit.rate(0.3) == 25.0


def test_replies_to_what_was_in_flight_come_within_a_second() -> None:
    """A refusal after that is news, since some of those mails may have been accepted."""
    limit = RateLimit(None)
    assert limit.refused(0.0, recent=100.0, in_flight=80)
    limit.take(0.02)
    assert not limit.refused(0.9, recent=100.0, in_flight=80)
    assert limit.refused(1.1, recent=100.0, in_flight=80)


def test_it_does_not_grow_before_a_mail_is_accepted() -> None:
    """A relay that refuses all for an hour is not sent more and more."""
    limit = RateLimit(None)
    limit.refused(0.0, recent=10.0, in_flight=0)
    assert limit.rate(3600.0) == 5.0
    limit.accepted(3600.0)  # one that was sent before
    assert limit.rate(7200.0) == 5.0


def test_a_rare_mail_is_not_slowed_to_a_crawl() -> None:
    """A rate measured over seconds with hardly a mail counts as one mail a second."""
    limit = RateLimit(None)
    limit.refused(0.0, recent=0.01, in_flight=0)
    assert limit.wait(0.0) == pytest.approx(2.0)
