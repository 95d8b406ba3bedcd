"""Who is told of which events."""

from otpmail.events import Event, MailAccepted, MailSettled, Observers, RelayLeft
from otpmail.model import Mail

MAIL = Mail("m1", "shop", "<m1@example.org>", 1.0)


class Ear:
    """An observer that keeps what it is told."""

    def __init__(self, *event_types: type[Event]) -> None:
        if event_types:
            self.event_types = frozenset(event_types)
        self.told: list[Event] = []

    def notify(self, event: Event) -> None:
        """Keep it."""
        self.told.append(event)


def test_each_is_told_of_what_it_hears() -> None:
    """One that says what it hears is told of nothing else; one that does not is told of everything."""
    all_ears, narrow = Ear(), Ear(MailSettled, RelayLeft)
    events: list[Event] = [MailAccepted(MAIL), MailSettled(MAIL), RelayLeft("relay")]
    observers = Observers(all_ears, narrow)
    for event in events:
        observers.notify(event)
    assert all_ears.told == events
    assert narrow.told == events[1:]
