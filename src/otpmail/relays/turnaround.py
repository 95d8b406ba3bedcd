"""How long a relay takes for a mail, so that mails leave together where none waits long for the others. No clock."""

from math import inf
from sys import maxsize

STALLED = 1 << 20
"""Added to the load of a connection whose mails make no progress."""

_SOON_SECONDS = 0.005
_WINDOW_SECONDS = 10.0  # mails are counted for this time, or longer while they never pause


class Turnaround:
    """The time for each mail of the last busy period: from when one was sent until none was in flight.

    `soon` is how long, in seconds, the last mail of a batch may wait for the others though other connections are idle.
    """

    def __init__(self, soon: float = _SOON_SECONDS) -> None:
        self._soon = soon
        self._each = inf  # seconds; unknown before the first answer
        self.busy_since, self.begun_before = 0.0, 0  # of the present busy period, or the last one
        self._counted_from = 0.0  # since when mails are counted for `rate`
        self._counted_before = 0
        self._rate = 0.0  # that of the window before

    def __repr__(self) -> str:
        return f"<Turnaround {self._each:g} s for each mail>"

    def busy(self, begun: int, now: float) -> None:
        """Note that the first mail is in flight now; `begun` mails had been sent before it."""
        self.busy_since, self.begun_before = now, begun
        if now - self._counted_from > _WINDOW_SECONDS:
            self._rate = (begun - self._counted_before) / (now - self._counted_from)
            self._counted_from, self._counted_before = now, begun

    def rate(self, answered: int, now: float) -> float:
        """How many mails a second were answered of late, if there were `answered` in all."""
        # The mails of less than a second say nothing of a whole one.
        present = (answered - self._counted_before) / max(1.0, now - self._counted_from)
        return max(present, self._rate)

    def idle(self, begun: int, now: float) -> None:
        """Note that no mail is in flight any more, after `begun` mails in all."""
        self._each = (now - self.busy_since) / (begun - self.begun_before)

    def most_together(self, now: float) -> int:
        """How many mails would all be answered soon if they left together, with those in flight."""
        if now - self.busy_since > self._soon:
            return 0
        return int(self._soon / self._each) if self._each else maxsize
