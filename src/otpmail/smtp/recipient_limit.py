"""How many recipients one relay takes in a transaction, learned from its replies to RCPT (RFC 5321, 4.5.3.1.10). Pure.

A relay that has refused a recipient after others gets no more of them at once from then on. The limit may change, so
now and then a transaction goes past it. That costs nothing but the replies, since the rest goes in a further one.
"""

from collections.abc import Callable

from otpmail.smtp.transaction import GROUP

_REVIEW_SECONDS = 600.0
_REVIEW_MAX_SECONDS = 3600.0


class RecipientLimit:
    """The limit of one relay, `known` once it was seen. `now` is the clock, in seconds.

    `on_change` is called with the limit when it was learned or has changed, None when it no longer holds.
    """

    def __init__(
        self, now: Callable[[], float] = lambda: 0.0, on_change: Callable[[int | None], None] = lambda _: None
    ) -> None:
        self.known: int | None = None
        self._now = now
        self._on_change = on_change
        self._review = _REVIEW_SECONDS
        self._review_at = 0.0
        self._was_dropped = False  # whether there was a limit that a review has refuted

    def __repr__(self) -> str:
        return f"<RecipientLimit {self.known}>"

    def most(self, wanted: int) -> int:
        """Return how many of the `wanted` recipients the next transaction may have; now and then, more than known."""
        if self.known is None or wanted <= self.known:
            return min(wanted, GROUP)
        now = self._now()
        if now < self._review_at:
            return self.known
        self._review_at = now + self._review
        return min(wanted, GROUP)

    def reached(self, taken: int) -> None:
        """Note that the relay took so many recipients of a transaction, and no more.

        A limit that comes and goes is reviewed less often too.
        """
        if self._was_dropped if self.known is None else taken >= self.known:
            self._review = min(2 * self._review, _REVIEW_MAX_SECONDS)
        else:
            self._review = _REVIEW_SECONDS
        self._review_at = self._now() + self._review
        self._set(taken)

    def took(self, recipients: int) -> None:
        """Note that the relay took all of so many recipients: a limit below that does not hold."""
        if self.known is not None and recipients > self.known:
            self._was_dropped = True
            self._set(None)

    def _set(self, limit: int | None) -> None:
        if limit != self.known:
            self.known = limit
            self._on_change(limit)
