"""How many connections a relay is given, learned from those that it refuses as one too many. Rules, no loop.

Microsoft 365 takes three for each mailbox, others count by address. None of them announces the number, and it also
changes, where other programs use the same account.
"""

from math import inf

_REVIEW_SECONDS = 60.0
_REVIEW_MAX_SECONDS = 3600.0
_SETTLE_SECONDS = 1.0  # a relay may count a connection that long after we have closed it


class Concurrency:
    """The number of connections to one relay: `limit` is unknown (None) until the relay has refused one.

    A refusal lowers it to the number of the others. Each time that `review` seconds have passed, one more is tried. The
    wait doubles with each one that is refused, up to `review_most`. Times are on the caller's clock, in seconds.
    `workers` is how many connections are wanted; each may have a successor for a moment.
    """

    def __init__(
        self, workers: int, *, review: float = _REVIEW_SECONDS, review_most: float = _REVIEW_MAX_SECONDS
    ) -> None:
        self.limit: int | None = None
        self.known: int | None = None  # the limit without the connection that is being tried
        self.taken = 0  # connections that are being dialled, are open, or are not yet closed
        self._workers = workers
        self._first_review = review
        self._review_most = review_most
        self._review = review
        self._review_at = inf
        self._closed_at = -inf
        self._refused = 0  # connections that the relay has refused, and that are not yet closed

    def __repr__(self) -> str:
        return f"<Concurrency {self.taken} of {'any number' if self.limit is None else self.limit}>"

    @property
    def present(self) -> int:
        """How many connections the workers may have now."""
        return self._workers if self.limit is None else min(self.limit, self._workers)

    @property
    def has_place(self) -> bool:
        """Whether a further connection may be dialled, without trying one more than the limit."""
        return self.limit is None or self.taken < self.limit

    def is_full(self, now: float) -> bool:
        """Whether no further connection may be dialled now. A worker that wants one asks, so it may try one more."""
        if self.has_place:
            return False
        if now < self._review_at:
            return True
        self._raise(now)
        return False

    def free_at(self) -> float:
        """When a further connection may be dialled even if none is closed; minus infinity for at once."""
        return -inf if self.has_place else self._review_at

    def dialled(self) -> None:
        """A dial begins, which takes a place."""
        self.taken += 1

    def closed(self, now: float, *, refused: bool = False) -> None:
        """A connection has been closed, or a dial has failed: its place is free.

        `refused` is whether the relay had refused it as one too many (`refused`).
        """
        self.taken -= 1
        if refused:
            self._refused -= 1
        else:
            self._closed_at = now

    def refused(self, now: float) -> None:
        """The relay has refused a connection or a mail on it, because of the number of connections.

        That connection still takes its place; `closed` frees it.
        """
        self._refused += 1
        others = max(1, self.taken - self._refused)
        limit = others if self.limit is None else min(self.limit, others)
        if now < self._closed_at + _SETTLE_SECONDS:  # the relay may still count that one
            wait = _SETTLE_SECONDS
        elif self.known is None or limit < self.known:
            self.known = limit
            wait = self._review = self._first_review
        else:  # the one that was tried is refused
            wait = self._review = min(2 * self._review, self._review_most)
        self.limit = limit
        self._review_at = now + wait

    def _raise(self, now: float) -> None:
        """Try one more; the one that was tried before has lasted."""
        assert self.limit is not None
        if self.known is not None and self.limit > self.known:
            self.known = self.limit
            self._review = self._first_review
        self.limit += 1
        self._review_at = now + self._review
        if self.limit > 2 * self._workers:  # more than are ever dialled
            self.limit = self.known = None
            self._review_at = inf
