"""How long a relay lets a connection be idle: what teaches it, and what refutes it. No loop, no clock."""

from math import inf

import pytest

from otpmail.events import ALL_EVENTS, Event, IdleTimeDropped, IdleTimeLearned
from otpmail.relays.idle_time import IdleTime

RELAY = "relay.example:465"


class Idle:
    """A connection that began to be dialled then."""

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.kept = inf
        self.idle_at_end: float | None = None
        self.lost_cause = ""
        self.is_idle_too_long = False

    def keep_idle(self, seconds: float) -> None:
        """Note for how long it may be idle."""
        self.kept = seconds


class Rig:
    """An idle time, and the connections of a relay that closes them after some time without a mail."""

    event_types = ALL_EVENTS

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.idle_time = IdleTime(RELAY, self)

    def notify(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)

    def open(self, begun: float) -> Idle:
        """Open a connection."""
        connection = Idle(begun)
        self.idle_time.opened(connection, begun)
        return connection

    def close(self, connection: Idle, now: float, idle: float | None = None) -> None:
        """Have the relay close it after that time without a mail, or close it ourselves."""
        connection.idle_at_end = idle
        connection.lost_cause = "" if idle is None else "421 4.4.2 idle too long"
        self.idle_time.released(connection, now)

    def learn(self, idle: float) -> None:
        """Have two connections closed after that time, the second dialled after the first was closed."""
        for begun in (0.0, idle + 1):
            self.close(self.open(begun), begun + idle, idle)


@pytest.fixture
def rig() -> Rig:
    """Return a rig that knows nothing."""
    return Rig()


@pytest.mark.parametrize(
    ("first", "second", "kept"), [(10.0, 10.0, 8.5), (10.0, 11.9, 8.5), (1.0, 1.9, 0.8), (300.0, 350.0, 285.0)]
)
def test_two_closes_after_a_like_time_teach_it(rig: Rig, first: float, second: float, kept: float) -> None:
    """Two closes after nearly the same time, one dialled after the other, are the relay's idle time."""
    rig.close(rig.open(0.0), first, first)
    assert rig.idle_time.known is None
    open_ = rig.open(first)
    rig.close(rig.open(first), first + second, second)
    assert rig.idle_time.known == first
    assert rig.events == [IdleTimeLearned(RELAY, first)]
    assert open_.kept == pytest.approx(kept)


def test_a_relay_that_restarts_twice_teaches_nothing(rig: Rig) -> None:
    """Two closes right after a mail are no limit, although both times are near each other."""
    rig.learn(0.4)
    assert rig.idle_time.known is None
    rig.learn(0.6)
    assert rig.idle_time.known == 0.6


def test_closes_that_come_together_teach_nothing(rig: Rig) -> None:
    """A relay that restarts closes all connections at once."""
    for connection in [rig.open(0.0) for _ in range(5)]:
        rig.close(connection, 10.0, 10.0)
    assert rig.idle_time.known is None


def test_closes_after_different_times_teach_nothing(rig: Rig) -> None:
    """A relay that closes now and then, for reasons of its own, has no idle time."""
    now = 0.0
    for idle in (10.0, 20.0, 40.0, 7.0):
        rig.close(rig.open(now), now + idle, idle)
        now += idle + 1
    assert rig.idle_time.known is None


def test_a_shorter_time_is_learned_like_the_first(rig: Rig) -> None:
    """A relay that closes sooner than before is believed after two closes."""
    rig.learn(60.0)
    for begun in (200.0, 220.0):
        assert rig.idle_time.known == 60.0
        rig.close(rig.open(begun), begun + 10, 10.0)
    assert rig.idle_time.known == 10.0


def test_once_an_hour_a_connection_may_be_idle_for_longer(rig: Rig) -> None:
    """A connection that the relay lets be idle for as long as it may be refutes the time; any other one does not."""
    rig.learn(10.0)
    usual = rig.open(3000.0)
    assert usual.kept == pytest.approx(8.5)
    usual.is_idle_too_long = True
    rig.close(usual, 3008.0)
    assert rig.idle_time.known == 10.0
    review = rig.open(3700.0)
    assert review.kept == inf
    assert rig.open(3700.0).kept == pytest.approx(8.5)
    review.is_idle_too_long = True
    rig.close(review, 3940.0)
    assert rig.idle_time.known is None
    assert rig.events[-1] == IdleTimeDropped(RELAY, 10.0)


def test_a_review_that_the_relay_closes_confirms_the_time(rig: Rig) -> None:
    """A relay that closes the reviewing connection too has not changed."""
    rig.learn(10.0)
    rig.close(rig.open(3700.0), 3710.0, 10.0)
    assert rig.idle_time.known == 10.0
