"""The union of all events, and the protocol of the observers that are notified of them."""

from typing import Protocol, get_args

from otpmail.events.addresses import AddressEvent
from otpmail.events.calls import CallEvent
from otpmail.events.mails import MailEvent
from otpmail.events.relays import RelayEvent

Event = RelayEvent | MailEvent | CallEvent | AddressEvent
ALL_EVENTS: frozenset[type[Event]] = frozenset(get_args(Event))


class Observer(Protocol):
    """Is notified of events whose type is in `event_types`. After that changes, `Observers.refresh` is called.

    An emitter may look there, and skip events that no observer asks for.
    """

    event_types: frozenset[type[Event]]

    def notify(self, event: Event) -> None:
        """Take note of `event`. Must neither block nor raise: it is called in the middle of the work."""


class Observers:
    """One observer in front of several: each is notified, in order, of the events it asks for."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers
        self.refresh()

    def refresh(self) -> None:
        """Look again which events each observer asks for."""
        self._notify = {
            kind: tuple(observer.notify for observer in self._observers if kind in observer.event_types)
            for kind in ALL_EVENTS
        }
        self.event_types = frozenset(kind for kind, targets in self._notify.items() if targets)

    def notify(self, event: Event) -> None:
        """Notify each observer that asks for events of this type."""
        for notify in self._notify[type(event)]:
            notify(event)
