"""How many mails that are not urgent may be in flight, so that an urgent one waits for few. No clock.

It is congestion control by delay, as in RFC 6817: the target is a queueing delay, and the distance to the relay does
not count. The window begins small and grows as replies are quick, as in RFC 5681, 3.1.
"""

from math import inf

FIRST = 2
"""Mails in flight on the first connection to a relay, until it has answered one."""

_TARGET_SECONDS = 0.5
_PATIENCE_SECONDS = 0.25


class CongestionWindow:
    """Limits what is in flight on one connection to what its relay answers within about half a second.

    All times are in seconds, on the caller's clock. `limit` is never below 1. EMAIL_WINDOW is the caller's to keep to
    besides. `review` is to be called at replies from `review_at` on, once mails are in flight for `patience`.
    """

    def __init__(self, *, target: float = _TARGET_SECONDS, patience: float = _PATIENCE_SECONDS) -> None:
        self._target = target
        self._usual_patience = patience
        self.limit = FIRST
        self.patience = 0.0
        self.review_at = -inf
        self._distance = inf  # the smallest time from a command to its reply
        self._marked_at = -inf
        self._answered_then = self._in_flight_then = 0

    def __repr__(self) -> str:
        return f"<CongestionWindow {self.limit} in flight, {self._distance:g} s away>"

    def start_with(self, limit: int) -> None:
        """Begin with this limit, which another connection to the same relay has found."""
        self.limit = limit

    def took(self, seconds: float) -> None:
        """Note the time from a command to its reply; the smallest one is the distance to the relay."""
        self._distance = min(self._distance, seconds)

    def review(self, begun: int, in_flight: int, now: float, *, busy: tuple[float, int], most: int) -> None:
        """Judge the mails that were answered since the last mark, of `begun` ones in all with `in_flight` left.

        `busy` is when the connection was idle last, and how many mails had begun before. `most` is the most that may
        ever be in flight.
        """
        answered = begun - in_flight
        if is_first := self._marked_at < busy[0]:  # the mark is of an earlier busy period; this one began with a mail
            self._marked_at, self._answered_then, self._in_flight_then = *busy, 1
        seconds, replies = now - self._marked_at, answered - self._answered_then
        if is_first:
            self.took(seconds)
        distance = min(self._distance, seconds)
        if replies < self._in_flight_then and seconds < self._target + distance:
            return
        self.limit = self._limit_for(seconds, distance, max(1, replies), most)
        self._marked_at, self._answered_then, self._in_flight_then = now, answered, in_flight
        self.patience = 0.0 if self.limit < most else self._usual_patience
        self.review_at = now + self.patience

    def _limit_for(self, seconds: float, distance: float, replies: int, most: int) -> int:
        """Return the limit for a relay that answered so many mails in this time: at most twice what it was."""
        if seconds * most <= self._target * replies:
            return most  # it is quick, however far away
        each, in_time = (seconds - distance) / replies, most
        if each * most > self._target + distance:
            in_time = int((self._target + distance) / each)
        return max(1, min(in_time, 2 * self.limit, most))
