"""Which observer is notified of which events."""

from otpmail.events import ALL_EVENTS, Event, MailAccepted, MailSettled, Observers, RelayIdle
from otpmail.model import Mail

MAIL = Mail("m1", "shop", "<m1@example.org>", 1.0)


class Recorder:
    """An observer that keeps what it was notified of."""

    def __init__(self, event_types: frozenset[type[Event]]) -> None:
        self.event_types = event_types
        self.events: list[Event] = []

    def notify(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)


def test_each_observer_is_notified_of_the_types_it_asks_for() -> None:
    """Each observer is notified of the events it asks for, in the order they happened, and of no others."""
    everything, some = Recorder(ALL_EVENTS), Recorder(frozenset({MailSettled, RelayIdle}))
    events: list[Event] = [MailAccepted(MAIL), MailSettled(MAIL), RelayIdle("relay")]
    observers = Observers(everything, some)
    for event in events:
        observers.notify(event)
    assert everything.events == events
    assert some.events == events[1:]


def test_observers_ask_for_what_any_of_them_asks_for() -> None:
    """Several observers together ask for the union of their event types, so that an emitter can skip the rest."""
    first, second = Recorder(frozenset({MailSettled})), Recorder(frozenset({MailSettled, RelayIdle}))
    assert Observers().event_types == frozenset()
    assert Observers(first, second).event_types == {MailSettled, RelayIdle}
