"""Decides when connections to one relay are replaced because of the number of mails that they have carried.

All workers share two learned numbers. One is the mails after which the relay ends a connection. The other is how many
mails before that the successor must be dialled to be open in time.
"""

from collections.abc import Callable
from typing import Protocol

from otpmail.events import MessageLimitDropped, MessageLimitLearned, Observer
from otpmail.relays.message_limit import Bounds, MessageLimit

_REVIEW_SECONDS = 60.0
_REVIEW_MAX_SECONDS = 3600.0


class Recyclable(Protocol):
    """The part of a connection that recycling reads and sets (`relays.connection`)."""

    begun: float

    def limit(self, bounds: Bounds, lead: int | None) -> None:
        """Keep to these bounds from now on, and be due for replacement `lead` mails ahead of the last one."""

    @property
    def most(self) -> int:
        """How many mails it may carry."""

    @property
    def lead(self) -> int:
        """How many mails ahead of that it is due for replacement."""

    @property
    def carried(self) -> int:
        """How many mails it was handed."""

    @property
    def succeeded_at(self) -> int | None:
        """How many of those before its successor was open, None if it was not."""

    @property
    def answered(self) -> int:
        """How many of those the relay has accepted or refused."""

    @property
    def lost_in_flight(self) -> int:
        """How many were in flight when the relay closed it without 421."""

    @property
    def hung_up(self) -> bool:
        """Whether the relay ended it over its mails: not for idleness, nor after a fault of either side."""

    @property
    def lost_cause(self) -> str:
        """Why it takes no more mails; empty while it does."""


class Lead:
    """How many mails ahead of a connection's last one its successor is dialled.

    If the dial starts too late, a worker waits for it; if too early, each connection carries less than it could. Each
    replacement shows how many mails are sent while a connection is dialled.
    """

    def __init__(self) -> None:
        self.mails: int | None = None  # None until the first connection is replaced

    def replaced(self, connection: Recyclable) -> None:
        """Learn from a connection that takes no more mails, unless it was replaced for another reason."""
        if connection.lost_cause:
            return
        # A busy connection is used up though its successor is open; what it carried after that had no dial to wait for.
        before = connection.carried if connection.succeeded_at is None else connection.succeeded_at
        left = connection.most - before
        used = connection.lead - left
        if left <= 0:
            self.mails = max(1, min(connection.lead * 3 // 2 + 1, connection.most - 1))
        elif used >= 0:
            self.mails = max(1, connection.lead * 7 // 8, used * 9 // 8)


class Recycling:
    """The open connections to one relay, and the bounds that they keep to. `now` is the clock, in seconds."""

    def __init__(self, relay: str, observer: Observer, *, now: Callable[[], float]) -> None:
        self._relay = relay
        self._observer = observer
        self._now = now
        self._limit = MessageLimit(review=_REVIEW_SECONDS, review_most=_REVIEW_MAX_SECONDS)
        self._lead = Lead()
        self._reviewing: dict[Recyclable, bool] = {}  # the open connections: whether one goes on past the limit

    def __repr__(self) -> str:
        return f"<Recycling {len(self._reviewing)} open, {self._limit!r}, lead {self._lead.mails}>"

    def opened(self, connection: Recyclable) -> None:
        """Keep this connection within the bounds, from now until it is closed."""
        known = self._limit.known
        self._limit.carried(self._most_answered)
        self._reviewing[connection] = self._limit.is_to_be_reviewed(self._now())
        self._apply(known)

    def released(self, connection: Recyclable) -> None:
        """Learn from a connection that takes no more mails."""
        known = self._limit.known
        self._lead.replaced(connection)
        if connection.hung_up:
            self._limit.ended(
                connection.answered, in_flight=connection.lost_in_flight, dialled=connection.begun, now=self._now()
            )
            self._limit.carried(self._most_answered)
        self._reviewing.pop(connection, None)
        self._apply(known)

    def closed(self, connection: Recyclable) -> None:
        """Learn from a connection whose mails have all been answered, or lost."""
        known = self._limit.known
        self._reviewing.pop(connection, None)
        self._limit.carried(connection.answered)
        self._apply(known)

    @property
    def _most_answered(self) -> int:
        return max((connection.answered for connection in self._reviewing), default=0)

    def _apply(self, known: int | None) -> None:
        """Have all open connections keep to what is known now; say whether a limit is, where it was `known` before."""
        for connection, reviewing in self._reviewing.items():
            connection.limit(self._limit.bounds(reviewing=reviewing), self._lead.mails)
        limit = self._limit.known
        if limit is not None and limit != known:
            self._observer.notify(MessageLimitLearned(self._relay, limit))
        elif limit is None and known is not None:
            self._observer.notify(MessageLimitDropped(self._relay, known))
