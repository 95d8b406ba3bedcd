"""Learns from what one relay refuses and closes; its open connections keep to that."""

from collections.abc import Callable
from functools import partial

from otpmail.events import Observer, RecipientLimitDropped, RecipientLimitLearned, ResetRefused
from otpmail.relays.congestion import FIRST
from otpmail.relays.connection import Connection
from otpmail.relays.idle_time import IdleTime
from otpmail.relays.recycling import Recycling
from otpmail.relays.refusal import PRESSURE
from otpmail.relays.throttle import Throttle
from otpmail.settings import RelaySettings
from otpmail.smtp.habits import Habits
from otpmail.smtp.recipient_limit import RecipientLimit
from otpmail.smtp.reply_kind import ReplyKind
from otpmail.timers import CallLater

_NO_ROOM = "the relay takes no mail even on one connection; others may use the same account"


class Learned:
    """How many connections a relay takes, how many mails on each and a second, and for how long one may be idle.

    `now` is the clock, in seconds, `call_later` the loop's.
    """

    def __init__(
        self,
        settings: RelaySettings,
        observer: Observer,
        *,
        workers: int,
        now: Callable[[], float],
        call_later: CallLater,
    ) -> None:
        self._name = settings.endpoint
        self._observer = observer
        self._now = now
        self.throttle = Throttle(
            self._name, observer, workers=workers, rate=settings.rate, now=now, call_later=call_later
        )
        self.concurrency = self.throttle.concurrency
        self.idle_time = IdleTime(self._name, observer)
        self._recycling = Recycling(self._name, observer, now=now)
        self._habits = Habits(
            RecipientLimit(now, self._recipient_limit_changed), partial(observer.notify, ResetRefused(self._name))
        )
        self._open: set[Connection] = set()  # those that take mails
        self._in_flight_limit = FIRST  # of the connection that was released last

    def __repr__(self) -> str:
        return f"<Learned {self.throttle!r} {self._recycling!r} {self.idle_time!r}>"

    def opened(self, connection: Connection) -> None:
        """Keep this connection to what is known, from now until it is closed."""
        connection.share(self._habits)
        connection.start_with(max((other.in_flight_limit for other in self._open), default=self._in_flight_limit))
        self._recycling.opened(connection)
        self.idle_time.opened(connection, self._now())
        self._open.add(connection)

    def refused(self, connection: Connection, kind: ReplyKind) -> None:
        """Learn from a mail that the relay refused because too much comes at once (`refusal.PRESSURE`)."""
        if kind is ReplyKind.TOO_FAST:
            in_flight = sum(open_.in_flight for open_ in self._open)
            self.throttle.was_too_fast(sum(open_.rate for open_ in self._open), in_flight)
        elif connection.refused_for is not kind:
            self.throttle.was_one_too_many()
            is_alone = self._open <= {connection}
            most = self.concurrency.limit
            connection.dismiss(_NO_ROOM if is_alone else f"the relay takes no more connections than {most}")
        connection.refused_for = kind

    def released(self, connection: Connection) -> None:
        """Learn from a connection that takes no more mails."""
        self._recycling.released(connection)
        self.idle_time.released(connection, self._now())
        kind = connection.parting_kind
        if connection.refused_for is None and kind in PRESSURE:
            self.refused(connection, kind)
        self._open.discard(connection)
        self._in_flight_limit = connection.in_flight_limit

    def closed(self, connection: Connection) -> None:
        """Learn from a connection whose mails have all been answered, or lost, and which takes no place any more."""
        self._recycling.closed(connection)
        refused = connection.refused_for is ReplyKind.TOO_MANY_CONNECTIONS
        self.concurrency.closed(self._now(), refused=refused)

    def excuses(self, connection: Connection) -> bool:
        """Whether its end is no failure: the relay takes mails over other connections, or later, or we left it."""
        if connection.refused_for is ReplyKind.TOO_MANY_CONNECTIONS:
            return bool(self._open)
        return bool(connection.dismissed) or connection.refused_for is ReplyKind.TOO_FAST

    def dismiss(self, cause: str, *, unproven_only: bool = False) -> None:
        """Use no connection any more, or none on which the relay has not answered a mail yet."""
        for connection in list(self._open):
            if not (unproven_only and connection.answered):
                connection.dismiss(cause)

    def _recipient_limit_changed(self, limit: int | None) -> None:
        learned = RecipientLimitLearned(self._name, limit) if limit is not None else RecipientLimitDropped(self._name)
        self._observer.notify(learned)
