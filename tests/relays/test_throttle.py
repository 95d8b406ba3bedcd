"""The events about what a relay takes at once: one for each number that an operator may want to see."""

import pytest

from delivery.fakes import Clock
from otpmail.events import (
    ALL_EVENTS,
    ConnectionLimitDropped,
    ConnectionLimitLearned,
    Event,
    RateLowered,
    RateRestored,
)
from otpmail.relays.throttle import Limits, Throttle

RELAY = "relay.example:465"


class Rig:
    """A throttle for five workers that all have a connection, and the events that it emits."""

    event_types = ALL_EVENTS

    def __init__(self, rate: float | None = None) -> None:
        self.clock = Clock()
        self.events: list[Event] = []
        self.throttle = Throttle(
            RELAY, self, workers=5, rate=rate, now=self.clock.now, call_later=self.clock.call_later
        )
        for _ in range(5):
            self.throttle.concurrency.dialled()

    def notify(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)

    def refuse(self, times: int) -> None:
        """Refuse so many connections, which are closed then."""
        for _ in range(times):
            self.throttle.was_one_too_many()
        for _ in range(times):
            self.throttle.concurrency.closed(self.clock.time, refused=True)


@pytest.fixture
def rig() -> Rig:
    """Return a rig without EMAIL_RATE."""
    return Rig()


def test_refusals_that_come_together_are_one_event(rig: Rig) -> None:
    """The number is announced a second after the first refusal, when all of them are in."""
    rig.refuse(2)
    assert rig.events == []
    rig.clock.advance(1.0)
    assert rig.events == [ConnectionLimitLearned(RELAY, 3, 5)]
    assert rig.throttle.limits == Limits(RELAY, 3, None)


def test_a_try_that_is_refused_is_no_news(rig: Rig) -> None:
    """The number stays what it was, so nothing is announced again."""
    rig.refuse(2)
    rig.clock.advance(61.0)
    assert not rig.throttle.is_full()
    rig.throttle.concurrency.dialled()
    rig.refuse(1)
    rig.clock.advance(10.0)
    assert rig.events == [ConnectionLimitLearned(RELAY, 3, 5)]


def test_a_try_that_lasts_drops_the_number(rig: Rig) -> None:
    """A relay that takes more than before is announced, and so is a further fall."""
    rig.refuse(2)
    for _ in range(2):
        rig.clock.advance(61.0)
        assert not rig.throttle.is_full()
        rig.throttle.concurrency.dialled()
    assert rig.events[1:] == [ConnectionLimitDropped(RELAY, 3)]
    rig.refuse(3)
    rig.clock.advance(1.0)
    assert rig.events[2:] == [ConnectionLimitLearned(RELAY, 2, 5)]


def test_the_rate_falls_and_recovers(rig: Rig) -> None:
    """The first fall differs from further ones, and the end of the limit is announced with the next mail."""
    assert rig.throttle.pause() == 0
    rig.throttle.was_too_fast(recent=100.0, in_flight=0)
    assert rig.throttle.is_limited
    assert rig.throttle.pause() == pytest.approx(1 / 70, rel=0.001)
    rig.clock.advance(0.1)
    rig.throttle.take_slot(urgent=False)
    rig.throttle.was_too_fast(recent=50.0, in_flight=0)
    lowered = [event for event in rig.events if isinstance(event, RateLowered)]
    assert [event.rate for event in lowered] == pytest.approx([70.0, 35.0])
    assert [event.again for event in lowered] == [False, True]
    rig.clock.advance(0.1)
    rig.throttle.take_slot(urgent=False)
    assert rig.throttle.awaits_proof
    rig.throttle.accepted_mail()
    assert not rig.throttle.awaits_proof
    rig.clock.advance(3600.0)
    rig.throttle.take_slot(urgent=False)
    assert rig.events[2:] == [RateRestored(RELAY)]
    assert not rig.throttle.is_limited


def test_email_rate_is_a_limit_from_the_start() -> None:
    """A relay with EMAIL_RATE is limited before it has refused anything, and after it has recovered."""
    rig = Rig(rate=10.0)
    assert rig.throttle.is_limited
    assert rig.throttle.limits == Limits(RELAY, 5, 10.0)
