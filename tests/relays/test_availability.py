"""When a relay counts as up, down and idle, and which events say so. No loop, no clock."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from otpmail.events import ALL_EVENTS, DialFailed, Event, RelayDown, RelayIdle, RelayUp
from otpmail.relays.availability import NOTICE_SECONDS, Availability
from relays.timer import Timer


@dataclass
class Rig:
    """The observer and the loop of an availability: it keeps the events and the timers."""

    event_types = ALL_EVENTS

    events: list[Event] = field(default_factory=list)
    timers: list[Timer] = field(default_factory=list)
    changes: int = 0
    next_dial: float = 3.0

    def notify(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)

    def call_later(self, seconds: float, ring: Callable[[], None]) -> Timer:
        """Set a timer, on a clock that stands at 0."""
        self.timers.append(Timer(seconds, ring))
        return self.timers[-1]

    def on_change(self) -> None:
        """Count the changes."""
        self.changes += 1

    def ring(self) -> None:
        """Let time pass until the one timer that is set rings."""
        (timer,) = (timer for timer in self.timers if not timer.cancelled)
        self.timers.clear()
        timer.ring()


@pytest.fixture
def rig() -> Rig:
    """Return a rig without events."""
    return Rig()


@pytest.fixture
def availability(rig: Rig) -> Availability:
    """Return the availability of a relay that was not dialled yet."""
    return Availability(
        "r:25",
        rig,
        retry_after=lambda: 3.0,
        next_dial=lambda: rig.next_dial,
        call_later=rig.call_later,
        on_change=rig.on_change,
    )


UP = RelayUp("r:25", "bdat", 16)


def _open(availability: Availability, *, doubtful: bool = False) -> None:
    availability.opened("bdat", 16, doubtful=doubtful)


def _empty(availability: Availability, lost_cause: str, *, is_idle: bool = False) -> None:
    availability.open -= 1
    availability.emptied(lost_cause, is_idle=is_idle)


def test_dials_that_fail_together_repeat_one_next_dial(availability: Availability, rig: Rig) -> None:
    """Of the failures between two steps of the backoff only the first is news; RelayDown names the next dial too."""
    for rig.next_dial in (3.0, 3.0, 3.0, 9.0, 9.0, 21.0):
        availability.failed("refused")
    down, *failed = rig.events
    assert down == RelayDown("r:25", "refused", 3.0)
    assert [event.repeated for event in failed if isinstance(event, DialFailed)] == [True, True, False, True, False]


def test_up_and_down_are_notified_once(availability: Availability, rig: Rig) -> None:
    """RelayUp and RelayDown are notified once; further connections are not, and further failures are DialFailed."""
    availability.failed("refused")
    availability.failed("refused")
    assert availability.down
    _open(availability)
    _open(availability)
    availability.failed("too many")
    assert not availability.down
    failed = [DialFailed("r:25", reason, 3.0, repeated=True) for reason in ("refused", "too many")]
    assert rig.events == [RelayDown("r:25", "refused", 3.0), failed[0], UP, failed[1]]
    assert rig.changes == 2


def test_a_moment_without_a_connection_is_not_notified(availability: Availability, rig: Rig) -> None:
    """The relay is not down if the last connection is lost, a dial fails, and another opens within the second."""
    _open(availability)
    _empty(availability, "lost")
    availability.failed("refused")
    _open(availability)
    assert all(timer.cancelled for timer in rig.timers)
    assert rig.events == [UP, DialFailed("r:25", "refused", 3.0)]


def test_after_a_second_without_a_connection_the_relay_is_down(availability: Availability, rig: Rig) -> None:
    """The relay is down a second after its last connection was lost, and the cause is that of its end."""
    _open(availability)
    _empty(availability, "421 bye")
    assert rig.timers[0].at == NOTICE_SECONDS
    rig.ring()
    assert availability.down
    assert rig.events == [UP, RelayDown("r:25", "the last connection ended: 421 bye", 3.0)]


@pytest.mark.parametrize("lost_cause", ["", "421 4.4.2 timeout"])
def test_a_relay_with_nothing_to_send_stays_up_until_the_next_dial(
    availability: Availability, rig: Rig, lost_cause: str
) -> None:
    """Either side may close the last idle connection: the relay is up, and goes down with the next dial that fails."""
    _open(availability)
    _empty(availability, lost_cause, is_idle=True)
    assert rig.timers == []
    assert availability.is_well
    assert rig.events == [UP]
    availability.failed("refused")
    assert availability.down
    assert rig.events == [UP, RelayDown("r:25", "refused", 3.0)]


def test_a_dial_that_fails_beside_others_leaves_them_their_time(availability: Availability, rig: Rig) -> None:
    """Of the dials after a relay has closed all idle connections one fails: another may open within the second."""
    _open(availability)
    _empty(availability, "421 4.4.2 timeout", is_idle=True)
    availability.dialling = 1
    availability.failed("432 too many")
    availability.refused()
    assert not availability.down
    availability.dialling = 0
    _open(availability)
    assert all(timer.cancelled for timer in rig.timers)
    assert rig.events == [UP, DialFailed("r:25", "432 too many", 3.0)]


def test_dials_that_fail_together_are_down_after_a_second(availability: Availability, rig: Rig) -> None:
    """A relay is down a second after the first of several dials has failed if none of the others opens by then."""
    _open(availability)
    _empty(availability, "421 4.4.2 timeout", is_idle=True)
    for availability.dialling in (1, 0):
        availability.failed("refused")
    assert not availability.down
    rig.ring()
    assert rig.events[-1] == RelayDown("r:25", "refused", 3.0)


def test_a_relay_whose_connections_we_closed_is_idle(availability: Availability, rig: Rig) -> None:
    """A later relay whose connections we closed, since the first is up again, is neither up nor down."""
    _open(availability)
    _empty(availability, "")
    rig.ring()
    assert not availability.down
    _open(availability)
    assert rig.events == [UP, RelayIdle("r:25"), UP]


def test_an_idle_relay_that_is_wanted_is_down(availability: Availability, rig: Rig) -> None:
    """A relay whose last connection we closed is down once a worker has been dialling it for a second."""
    _open(availability)
    availability.wanted += 1
    _empty(availability, "")
    rig.ring()
    assert availability.down
    assert isinstance(rig.events[-1], RelayDown)


def test_an_idle_relay_that_then_fails_is_down(availability: Availability, rig: Rig) -> None:
    """A relay is down if a dial has failed since we closed the last connection."""
    _open(availability)
    _empty(availability, "")
    availability.failed("refused")
    assert not availability.down
    rig.ring()
    assert rig.events[-1] == RelayDown("r:25", "refused", 3.0)


def test_an_idle_relay_that_may_not_be_dialled_is_down(availability: Availability, rig: Rig) -> None:
    """An idle relay that had refused connections is down once a worker wants one before the next dial may start."""
    _open(availability)
    availability.failed("535 no")
    availability.refused()  # one is still open
    _empty(availability, "")
    availability.refused()  # the notice of a second is running
    assert not availability.down
    rig.ring()
    assert rig.events[-1] == RelayIdle("r:25")
    availability.refused()
    availability.refused()
    assert availability.down
    assert rig.events[-2:] == [RelayIdle("r:25"), RelayDown("r:25", "535 no", 3.0)]


def test_a_doubtful_connection_that_we_close_leaves_it_idle(availability: Availability, rig: Rig) -> None:
    """A relay is idle if we close a doubtful connection before it hangs up again and no worker wants one."""
    availability.failed("it hung up")
    _open(availability, doubtful=True)
    _empty(availability, "")
    rig.ring()
    assert not availability.down
    assert rig.events[-1] == RelayIdle("r:25")


@pytest.mark.parametrize("opens", [True, False])
def test_the_dial_after_a_doubtful_connection_that_was_idle_has_its_time(
    availability: Availability, rig: Rig, *, opens: bool
) -> None:
    """A relay that ends a doubtful connection for idleness is down only if the next dial takes over a second."""
    _open(availability)
    _empty(availability, "connection lost")
    _open(availability, doubtful=True)
    _empty(availability, "421 4.4.2 timeout", is_idle=True)
    availability.wanted += 1
    rig.timers = [timer for timer in rig.timers if not timer.cancelled]
    rig.ring()
    assert rig.events == [UP]
    assert [timer.at for timer in rig.timers] == [NOTICE_SECONDS]
    if opens:
        _open(availability)
        assert all(timer.cancelled for timer in rig.timers)
        assert rig.events == [UP]
    else:
        rig.ring()
        assert rig.events == [UP, RelayDown("r:25", "the last connection ended: 421 4.4.2 timeout", 3.0)]


def test_a_doubtful_connection_has_to_last(availability: Availability, rig: Rig) -> None:
    """A relay that hung up before is up when a connection has lasted a second, and down otherwise."""
    _open(availability, doubtful=True)
    assert rig.events == []
    rig.ring()
    assert rig.events == [UP]
    availability.open = 0
    _open(availability, doubtful=True)
    _empty(availability, "421 bye")
    rig.ring()
    assert availability.down
