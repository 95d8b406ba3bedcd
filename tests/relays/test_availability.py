"""Held here: when a relay counts as here, as away, and as not in use, and what is told of it. No loop, no clock."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from otpmail.events import ALL_EVENTS, DialFailed, Event, RelayDown, RelayIdle, RelayUp
from otpmail.relays.availability import NOTICE_SECONDS, Availability


@dataclass
class Alarm:
    """A timer that rings when the test says so."""

    seconds: float
    ring: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        """Call it off."""
        self.cancelled = True


@dataclass
class DeliveryHandler:
    """What a presence talks to: it keeps the events, and the alarms."""

    event_types = ALL_EVENTS

    told: list[Event] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)

    def notify(self, event: Event) -> None:
        """Keep it."""
        self.told.append(event)

    def call_later(self, seconds: float, ring: Callable[[], None]) -> Alarm:
        """Set an alarm."""
        self.alarms.append(Alarm(seconds, ring))
        return self.alarms[-1]

    def ring(self) -> None:
        """Let time pass until the one alarm that is set rings."""
        (alarm,) = (alarm for alarm in self.alarms if not alarm.cancelled)
        self.alarms.clear()
        alarm.ring()


@pytest.fixture
def desk() -> DeliveryHandler:
    """Return a desk."""
    return DeliveryHandler()


@pytest.fixture
def presence(desk: DeliveryHandler) -> Availability:
    """Return a presence that has told nothing yet."""
    return Availability("r:25", desk, retry_after=lambda: 3.0, call_later=desk.call_later)


UP = RelayUp("r:25", "bdat", 16)


def _open(presence: Availability, *, doubtful: bool = False) -> None:
    presence.opened("bdat", 16, doubtful=doubtful)


def _empty(presence: Availability, lost_cause: str, rest: float = 0.0) -> None:
    presence.open -= 1
    presence.emptied(lost_cause, rest=rest)


def test_up_and_down_are_told_once(presence: Availability, desk: DeliveryHandler) -> None:
    """Whatever else is opened, or fails, meanwhile; each failure after the first is told as such."""
    presence.failed("refused")
    presence.failed("refused")
    assert presence.away
    _open(presence)
    _open(presence)
    presence.failed("too many")
    assert not presence.away
    failed = DialFailed("r:25", "refused", 3.0), DialFailed("r:25", "too many", 3.0)
    assert desk.told == [RelayDown("r:25", "refused", 3.0), failed[0], UP, failed[1]]


def test_a_moment_without_a_connection_is_not_told(presence: Availability, desk: DeliveryHandler) -> None:
    """The last one is lost, a dial fails, the next one comes about within the second."""
    _open(presence)
    _empty(presence, "lost")
    presence.failed("refused")
    _open(presence)
    assert all(alarm.cancelled for alarm in desk.alarms)
    assert desk.told == [UP, DialFailed("r:25", "refused", 3.0)]


def test_a_second_without_a_connection_is_told(presence: Availability, desk: DeliveryHandler) -> None:
    """With the reason why the last one ended; counted from when the next dial may go."""
    _open(presence)
    _empty(presence, "421 bye", rest=0.7)
    assert desk.alarms[0].seconds == NOTICE_SECONDS + 0.7
    desk.ring()
    assert presence.away
    assert desk.told == [UP, RelayDown("r:25", "the last connection ended: 421 bye", 3.0)]


def test_a_relay_that_was_left_on_purpose_is_not_away(presence: Availability, desk: DeliveryHandler) -> None:
    """A stand-in whose connections we closed, when the first relay was back, is neither up nor down till it is used."""
    _open(presence)
    _empty(presence, "")
    desk.ring()
    assert not presence.away
    _open(presence)
    assert desk.told == [UP, RelayIdle("r:25"), UP]


def test_a_relay_that_was_left_and_is_wanted_is_away(presence: Availability, desk: DeliveryHandler) -> None:
    """Its last connection was worn, and whoever dials the next one has been at it for a second."""
    _open(presence)
    presence.wanted += 1
    _empty(presence, "")
    desk.ring()
    assert presence.away
    assert isinstance(desk.told[-1], RelayDown)


def test_a_relay_that_was_left_and_then_fails_is_away(presence: Availability, desk: DeliveryHandler) -> None:
    """A dial that failed since then is news, though nobody dials any more."""
    _open(presence)
    _empty(presence, "")
    presence.failed("refused")
    assert not presence.away
    desk.ring()
    assert desk.told[-1] == RelayDown("r:25", "refused", 3.0)


def test_a_relay_that_was_left_and_may_not_be_dialled_is_away(presence: Availability, desk: DeliveryHandler) -> None:
    """It refused more of our connections before it was left; then it is wanted, and its next try is not due."""
    _open(presence)
    presence.failed("535 no")
    presence.refused()  # one is still open
    _empty(presence, "")
    presence.refused()  # what becomes of it is told within the second
    assert not presence.away
    desk.ring()
    assert desk.told[-1] == RelayIdle("r:25")
    presence.refused()
    presence.refused()
    assert presence.away
    assert desk.told[-2:] == [RelayIdle("r:25"), RelayDown("r:25", "535 no", 3.0)]


def test_a_doubtful_connection_that_we_close_leaves_it_unused(presence: Availability, desk: DeliveryHandler) -> None:
    """It has not hung up again, and nobody wants another one."""
    presence.failed("it hung up")
    _open(presence, doubtful=True)
    _empty(presence, "")
    desk.ring()
    assert not presence.away
    assert desk.told[-1] == RelayIdle("r:25")


def test_a_doubtful_connection_has_to_last(presence: Availability, desk: DeliveryHandler) -> None:
    """A relay that hung up before is back when a connection has lasted a second, and away when it has not."""
    _open(presence, doubtful=True)
    assert desk.told == []
    desk.ring()
    assert desk.told == [UP]
    presence.open = 0
    _open(presence, doubtful=True)
    _empty(presence, "421 bye")
    desk.ring()
    assert presence.away
