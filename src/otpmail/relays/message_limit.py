"""How many mails a relay takes on one connection, learned from the connections that it ends. Rules, no loop.

Few relays announce that number (MAILMAX of RFC 9422); the others say 421 after it, or close. One such end is only a
suspicion, since relays end connections for other reasons too: restarts, rate limits, faults. A second end near the same
count, on a connection dialled after the first end, makes it a limit. A connection that carries more refutes it.
"""

from dataclasses import dataclass
from sys import maxsize
from typing import NamedTuple

UNLIMITED = maxsize
"""More mails than any connection carries."""

# Two counts are near each other within a twentieth: some relays count refused mails, others do not.
_NEAR = 20
_MOST_SLACK = 8  # each mail within the slack waits for the answer to the one before

_NEVER_CAREFUL = range(0)


class Bounds(NamedTuple):
    """Limits one connection to `most` mails in all, and to one in flight while its count of mails is in `careful`."""

    most: int = UNLIMITED
    careful: range = _NEVER_CAREFUL


@dataclass(frozen=True, slots=True)
class _Suspicion:
    """Counts after one of which the relay may end connections, and when it did so first."""

    counts: range
    seen: float


class MessageLimit:
    """Learns the limit of one relay; `known` is None without one. Times are on the caller's clock, in seconds.

    A limit may be wrong, or change. So after `review` seconds, and later each time that it is confirmed, one connection
    goes on past it. Around a suspected or reviewed count, connections carry one mail at a time. A relay that closes
    without a word can leave no more than that uncertain.
    """

    def __init__(self, *, review: float, review_most: float) -> None:
        self.known: int | None = None
        self._suspicion: _Suspicion | None = None
        self._first_review = review
        self._review_most = review_most
        self._review = review
        self._review_at = 0.0

    def __repr__(self) -> str:
        return f"<MessageLimit known={self.known} suspicion={self._suspicion and self._suspicion.counts}>"

    def ended(self, mails: int, *, in_flight: int, dialled: float, now: float) -> None:
        """Learn from a connection that the relay ended after it had answered `mails` mails.

        `in_flight` is how many more were in flight where the relay closed without 421. It may have answered some of
        those, and the answers were lost with the connection.
        """
        if not mails:
            return
        self.carried(mails)
        slack = _slack(mails)
        counts = range(mails - slack, mails + slack + in_flight + 1)
        if self.known is not None and _overlap(counts, _around(self.known)):
            self._confirm(mails, exact=not in_flight, now=now)
        elif self._suspicion is None or not _overlap(counts, self._suspicion.counts):
            self._suspicion = _Suspicion(counts, now)
        elif dialled >= self._suspicion.seen:  # equal where the clock is coarse, as uvloop's
            self.known = mails
            self._suspicion = None
            self._review = self._first_review
            self._review_at = now + self._review

    def carried(self, mails: int) -> None:
        """Forget what is refuted by a connection on which the relay has answered so many mails."""
        if self._suspicion is not None and mails >= self._suspicion.counts.stop:
            self._suspicion = None
        if self.known is not None and mails >= _around(self.known).stop:
            self.known = None
            self._suspicion = None

    def bounds(self, *, reviewing: bool) -> Bounds:
        """Return the present bounds of a connection; with `reviewing`, those of one that goes on past the limit."""
        if reviewing and self.known is not None:
            return Bounds(careful=_until_refuted(self.known, _around(self.known)))
        most = UNLIMITED if self.known is None else self.known
        if self._suspicion is None:
            return Bounds(most)
        counts = self._suspicion.counts
        return Bounds(most, _until_refuted(counts.start, counts))

    def is_to_be_reviewed(self, now: float) -> bool:
        """Whether the connection dialled now is to go on past the limit. True once for each review."""
        if self.known is None or now < self._review_at:
            return False
        self._review_at = now + self._review
        return True

    def _confirm(self, mails: int, *, exact: bool, now: float) -> None:
        """Note that the relay ended another connection near the limit, which only ever moves down."""
        assert self.known is not None
        if mails >= self.known:
            self._review = min(2 * self._review, self._review_most)
            self._review_at = now + self._review
        elif exact:
            self.known = mails


def _until_refuted(first: int, counts: range) -> range:
    """The counts from `first` to the last of `counts`, and one more, at which the refuting mail is in flight."""
    return range(first, counts.stop + 1)


def _slack(mails: int) -> int:
    return min(mails // _NEAR, _MOST_SLACK)


def _around(mails: int) -> range:
    return range(mails - _slack(mails), mails + _slack(mails) + 1)


def _overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop
