"""When mails leave the queue: at once, or together with those that come in a moment. No clock of its own."""

from math import inf

SECONDS = 0.002
"""How long mails gather at most, counted from when the last ones left."""

_ENOUGH = 16  # mails for which one write costs each of them next to nothing


class Beat:
    """Under load, mails leave a few at a time: a write, its answer and waking for both cost more than the mail itself.

    A mail waits only for those that are to be expected: as many as were under way at once since mails left before. So
    one after another, each sent when the last has been answered, none waits; and nobody waits beyond the next beat.
    """

    def __init__(self) -> None:
        self._left_at = -inf
        self._expected = 1
        self._peak = 1

    def __repr__(self) -> str:
        return f"<Beat {self._expected} expected>"

    @property
    def next_at(self) -> float:
        """When whatever waits is to leave."""
        return self._left_at + SECONDS

    def is_due(self, now: float, *, waiting: int, under_way: int) -> bool:
        """Whether the `waiting` mails are to leave now, of so many `under_way`: accepted and not answered."""
        self._peak = max(self._peak, under_way)
        return waiting >= self._expected or now >= self.next_at

    def left(self, now: float, *, under_way: int) -> None:
        """All that waited has left, with which so many are under way."""
        self._left_at = now
        self._expected = min(max(self._peak, under_way), _ENOUGH)
        self._peak = 1
