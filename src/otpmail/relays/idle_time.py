"""How long a relay lets a connection be idle, learned from those that it closes. Rules, no loop.

Amazon SES closes a connection after 10 s, others after 5 minutes (RFC 5321, 4.5.3.2.7); none of them announces it. One
close is only a suspicion, since a relay that restarts closes idle connections too.
"""

from math import inf

from otpmail.events import IdleTimeDropped, IdleTimeLearned, Observer
from otpmail.relays.owner import Idler

_NEAR = 0.2  # two times are near each other within this part of the shorter one, or within a second
_NEAR_SECONDS = 1.0
_LEAST_SECONDS = (
    0.5  # No relay has a shorter limit; one that restarts twice closes connections that were used just now.
)
# A connection is closed so much before the time that its successor is open, and no goodbye crosses a mail.
_MOST_MARGIN, _MARGIN, _MARGIN_SECONDS = 0.2, 0.05, 1.5
_REVIEW_SECONDS = 3600.0


class IdleTime:
    """The idle time of one relay; `known` is None until two closes show it, the second after a dial behind the first.

    Open connections keep to it. Once an hour a new one does not, so that a relay which has changed is noticed. Times
    are on the caller's clock, in seconds.
    """

    def __init__(self, relay: str, observer: Observer) -> None:
        self.known: float | None = None
        self._relay = relay
        self._observer = observer
        self._suspicion: tuple[float, float] | None = None  # a time, and when it was seen
        self._review_at = inf
        self._open: dict[Idler, bool] = {}  # whether it may be idle for longer, as a review

    def __repr__(self) -> str:
        return f"<IdleTime {'unknown' if self.known is None else f'{self.known:g} s'}>"

    def opened(self, connection: Idler, now: float) -> None:
        """Tell this connection how long it may be idle, from now until it is released."""
        reviews = now >= self._review_at
        if reviews:
            self._review_at = now + _REVIEW_SECONDS
        self._open[connection] = reviews
        self._apply()

    def released(self, connection: Idler, now: float) -> None:
        """Learn from a connection that takes no more mails."""
        reviewed = self._open.pop(connection, False)
        if connection.idle_at_end is not None:
            self._closed(connection.idle_at_end, dialled=connection.begun, now=now)
        elif self.known is not None and reviewed and connection.is_idle_too_long and not connection.lost_cause:
            self._observer.notify(IdleTimeDropped(self._relay, self.known))
            self.known = self._suspicion = None
        self._apply()

    def _closed(self, idle: float, *, dialled: float, now: float) -> None:
        if idle < _LEAST_SECONDS or (self.known is not None and idle >= self.known):
            return
        if self._suspicion is None or not _is_near(idle, self._suspicion[0]):
            self._suspicion = idle, now
        elif dialled >= self._suspicion[1]:  # equal where the clock is coarse, as uvloop's
            self.known = min(idle, self._suspicion[0])
            self._suspicion = None
            self._review_at = now + _REVIEW_SECONDS
            self._observer.notify(IdleTimeLearned(self._relay, self.known))

    def _apply(self) -> None:
        most = inf
        if self.known is not None:
            most = self.known - min(_MOST_MARGIN * self.known, max(_MARGIN * self.known, _MARGIN_SECONDS))
        for connection, reviews in self._open.items():
            connection.keep_idle(inf if reviews else most)


def _is_near(one: float, other: float) -> bool:
    return abs(one - other) <= max(_NEAR_SECONDS, _NEAR * min(one, other))
