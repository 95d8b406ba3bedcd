"""How mails are spaced: by EMAIL_RATE, and by what the relay refuses as too fast."""

from collections import deque
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
        self._times: deque[float] = deque()  # of the replies of the last second

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
        self._times.append(self.now)
        while self._times[0] < self.now - 1.0:
            self._times.popleft()
        if self._counted <= self._most:
            self.taken += 1
            self.limit.accepted(self.now)
        else:
            self.refused += 1
            self.limit.refused(self.now, recent=len(self._times), in_flight=0)


@pytest.mark.parametrize(("most", "seconds"), [(14, 1.0), (3, 2.0), (5, 10.0), (30, 60.0), (600, 60.0)])
def test_the_rate_settles_near_what_the_relay_takes(most: int, seconds: float) -> None:
    """In ten minutes the relay is sent four fifths of what it would take, and refuses few mails after the start."""
    relay = Relay(most, seconds)
    relay.run(5.0)
    before = relay.refused
    relay.run(595.0)
    assert relay.taken >= 0.8 * 600 * most / seconds
    assert relay.refused - before <= relay.taken // 4


def test_the_rate_recovers_in_seconds() -> None:
    """At a relay that takes twenty mails a second, 120 mails take nine seconds; ideal would be six."""
    relay = Relay(20, 1.0)
    while relay.taken < 120:
        relay.run(0.1)
    assert relay.now <= 1009.0


def test_a_relay_that_takes_nothing_gets_few_mails() -> None:
    """The time between two tries doubles, up to five seconds in the first minute, and to a minute then."""
    relay = Relay(0, 1.0)
    relay.run(600.0)
    assert relay.refused <= 40
    assert relay.limit.rate(relay.now) == pytest.approx(1 / 60)


def test_a_relay_that_counts_by_the_minute_is_tried_when_that_is_over() -> None:
    """A mail goes every five seconds until a minute has passed without an accepted mail."""
    relay = Relay(30, 60.0)
    relay.run(59.0)
    assert relay.taken == 30
    assert relay.refused <= 25
    relay.run(7.0)
    assert relay.taken > 30


def _flowing(refused_at: float, ceiling: float | None = None) -> RateLimit:
    """Return the limit of a relay that refused a mail at this rate, and took one at 0.0."""
    limit = RateLimit(ceiling)
    assert limit.refused(-1.0, recent=refused_at, in_flight=0)
    limit.take(-0.5)
    limit.accepted(0.0)
    return limit


def test_the_rate_recovers_step_by_step() -> None:
    """The rate grows from 0.7 to 0.9 of that of the refusal in 5 s, and then by as much as that was in a minute."""
    limit = _flowing(100.0)
    assert [limit.rate(seconds) for seconds in (0.0, 2.5, 5.0)] == pytest.approx([70.0, 80.0, 90.0])
    rates = [limit.rate(5.0 + 10.0 * n) or 0.0 for n in range(7)]
    assert [after - before for before, after in pairwise(rates)] == pytest.approx([100 / 6] * 6)
    assert limit.rate(5.0 + 66.1) is None
    assert not limit.limited


def test_email_rate_is_the_ceiling() -> None:
    """The rate recovers to EMAIL_RATE and no further."""
    limit = RateLimit(40.0)
    limit.refused(0.0, recent=200.0, in_flight=0)
    limit.take(0.1)
    limit.accepted(0.2)
    assert limit.rate(0.2) == pytest.approx(28.0)
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
    assert limit.rate(0.3) == pytest.approx(35.0)


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
    assert limit.rate(3600.0) == pytest.approx(7.0)
    limit.accepted(3600.0)  # one that was sent before
    assert limit.rate(7200.0) == pytest.approx(7.0)


def test_a_rare_mail_is_not_slowed_to_a_crawl() -> None:
    """A rate measured over seconds with hardly a mail counts as one mail a second."""
    limit = RateLimit(None)
    limit.refused(0.0, recent=0.01, in_flight=0)
    assert limit.wait(0.0) == pytest.approx(1 / 0.7)


def test_a_quiet_time_does_not_count_as_slow() -> None:
    """A relay that refuses a mail after an idle hour goes on at seven tenths of its rate, not of the hour's average."""
    limit = _flowing(100.0)
    for n in range(10):
        limit.take(0.5 + n / 80)
        limit.accepted(0.5 + n / 80)
    before = limit.rate(20.0)
    assert before is not None
    limit.take(20.0)
    assert limit.refused(20.1, recent=1.0, in_flight=0)
    assert 1 / limit.wait(20.1) == pytest.approx(0.7 * before, rel=0.01)


# Urgent mails.


@pytest.mark.parametrize("rate", [0.02, 0.5, 10.0])
def test_an_urgent_mail_waits_for_urgent_ones_only(rate: float) -> None:
    """An urgent mail goes at once though another mail has used the slot, and the next other mail waits for both."""
    limit = RateLimit(rate)
    limit.take(100.0)
    limit.take(100.0, urgent=True)
    assert limit.wait_urgent(100.0) == pytest.approx(1 / rate, abs=0.06)
    assert limit.wait(100.0) == pytest.approx(2 / rate, abs=0.06)


def test_urgent_mails_keep_to_the_rate_too() -> None:
    """However many urgent mails there are, all mails together are no more than EMAIL_RATE allows, and one."""
    limit = RateLimit(20.0)
    sent = 0
    for tick in range(10_000):
        now = 100 + tick / 1000
        for urgent in (True, False):
            if not (limit.wait_urgent(now) if urgent else limit.wait(now)):
                limit.take(now, urgent=urgent)
                sent += 1
    assert 199 <= sent <= 203


def test_an_urgent_mail_is_tried_while_the_relay_refuses_all() -> None:
    """Other mails wait up to a minute for the next try, an urgent one ten seconds at most."""
    relay = Relay(0, 1.0)
    relay.run(600.0)
    relay.limit.take(relay.now, urgent=True)
    assert relay.limit.refused(relay.now, recent=1.0, in_flight=0) is False
    assert relay.limit.wait_urgent(relay.now) <= 10.0
    assert relay.limit.wait(relay.now) == pytest.approx(60.0)


def test_an_urgent_mail_that_is_taken_ends_the_pause_for_all() -> None:
    """Once the relay takes an urgent mail, the others go on at seven tenths of the rate of the refusal."""
    relay = Relay(0, 1.0)
    relay.run(600.0)
    relay.limit.take(relay.now, urgent=True)
    relay.limit.accepted(relay.now)
    assert relay.limit.wait(relay.now) == pytest.approx(1 / 0.7)


def test_a_relay_that_refuses_for_a_second_refuses_all() -> None:
    """A refusal that comes a second or more after the first one, with no mail accepted between, is of all mails."""
    limit = RateLimit(None)
    limit.refused(0.0, recent=100.0, in_flight=0)
    for now, refuses_all in ((0.5, False), (0.99, False), (1.0, True)):
        limit.take(now)
        limit.refused(now, recent=100.0, in_flight=0)
        assert limit.refuses_all is refuses_all
    limit.take(2.0)
    limit.accepted(2.0)
    assert not limit.refuses_all
