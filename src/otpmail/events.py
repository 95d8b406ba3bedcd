"""What happened, told to whoever observes: logs now, metrics and traces beside them. The core only speaks here."""

from typing import Protocol, get_args

from otpmail.model import Mail
from otpmail.values import frozen


@frozen()
class RelayUp:
    """A connection to the relay is open and signed in, and none was before; `mode` says how mails travel on it.

    `window` is how many may be in flight at once.
    """

    relay: str
    mode: str
    window: int


@frozen()
class RelayDown:
    """Dialling failed, or no connection has been open for a second to a relay in use. `retry_after` is in seconds.

    Told once, until it is up again.
    """

    relay: str
    error: str
    retry_after: float


@frozen()
class RelayLeft:
    """We closed the last connection to the relay, and want none for now: mails go through another one."""

    relay: str


@frozen()
class DialFailed:
    """One more dial failed, while the relay was already away or other connections are open."""

    relay: str
    error: str
    retry_after: float


@frozen()
class ChunksUnsafe:
    """Mails go by DATA: the relay runs a chunk that it refused as commands, or ends connections over it.

    The former is told once, the latter each time that mails had gone by BDAT again.
    """

    relay: str


@frozen()
class ConnectionOpened:
    """A connection is ready; `mode` says how mails travel on it, up to `window` at once."""

    relay: str
    mode: str
    window: int


@frozen()
class ConnectionClosed:
    """A connection ended after `sent` mails; `cause` says why.

    `recycled`: it was replaced, neither lost nor ended by a stop.
    """

    relay: str
    cause: str
    sent: int
    recycled: bool


@frozen()
class MailAccepted:
    """A mail has an id and a place in the queue."""

    mail: Mail


@frozen()
class MailDeferred:
    """An attempt did not settle the mail; the next one is in `retry_after` seconds."""

    mail: Mail
    retry_after: float
    reply: str


@frozen()
class MailSettled:
    """A mail reached its final state."""

    mail: Mail


@frozen()
class CodeChecked:
    """A code was checked; `result` is the answer's name. Neither the code nor the address is told."""

    result: str


Event = (
    RelayUp
    | RelayDown
    | RelayLeft
    | DialFailed
    | ChunksUnsafe
    | ConnectionOpened
    | ConnectionClosed
    | MailAccepted
    | MailDeferred
    | MailSettled
    | CodeChecked
)


class Observer(Protocol):
    """Is told what happened. It must not block and must not raise: it runs in the middle of the work."""

    def notify(self, event: Event) -> None:
        """Take note of `event`."""


def event_types(observer: Observer, kind: type[Event]) -> bool:
    """Whether an observer wants events of this kind; one without `event_types` wants all."""
    return kind in getattr(observer, "event_types", _KINDS)


class Observers:
    """Tells several observers in turn, each of what it hears."""

    def __init__(self, *observers: Observer) -> None:
        self._hearers = {
            kind: tuple(observer.notify for observer in observers if event_types(observer, kind)) for kind in _KINDS
        }
        self.event_types = frozenset(kind for kind, hearers in self._hearers.items() if hearers)

    def notify(self, event: Event) -> None:
        """Tell each observer of `event`."""
        for notify in self._hearers[type(event)]:
            notify(event)


_KINDS: frozenset[type[Event]] = frozenset(get_args(Event))
