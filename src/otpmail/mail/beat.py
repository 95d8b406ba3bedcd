"""When mails leave the queue: at once, or together with those that come in a moment. No clock of its own."""

from collections.abc import Callable
from math import inf
from time import process_time

MOST_SECONDS = 0.01
"""How long mails gather at most, counted from when the last ones left."""

_LOOK_SECONDS = 0.05  # between two looks at how busy the process is
_ENOUGH = 32  # mails for which a write or two cost each of them next to nothing


class Beat:
    """Under load, mails leave a few at a time: a write, its answer and waking for both cost more than the mail itself.

    The busier the process is, by its `cpu` seconds, the longer a beat: `MOST_SECONDS` where it keeps a core busy, a
    quarter of that at half of it, since with time to spare there is little to gain. A mail waits only for those that
    are to be expected: as many as were under way at once since mails left before. So one after another, each sent when
    the last has been answered, none waits; and nobody waits beyond the next beat.
    """

    def __init__(self, cpu: Callable[[], float] = process_time) -> None:
        self._cpu = cpu
        self._seconds = 0.0
        self._looked_at, self._used = -inf, 0.0
        self._left_at = -inf
        self._expected = 1
        self._peak = 1

    def __repr__(self) -> str:
        return f"<Beat {self._seconds * 1000:.1f} ms, {self._expected} expected>"

    @property
    def next_at(self) -> float:
        """When whatever waits is to leave."""
        return self._left_at + self._seconds

    def is_due(self, now: float, *, waiting: int, under_way: int) -> bool:
        """Whether the `waiting` mails are to leave now, of so many `under_way`: accepted and not answered."""
        self._peak = max(self._peak, under_way)
        return waiting >= self._expected or now >= self.next_at

    def left(self, now: float, *, under_way: int) -> None:
        """All that waited has left, with which so many are under way."""
        self._left_at = now
        self._expected = min(max(self._peak, under_way), _ENOUGH)
        self._peak = 1
        if now - self._looked_at >= _LOOK_SECONDS:
            self._look(now)

    def _look(self, now: float) -> None:
        used = self._cpu()
        busy = min(1.0, (used - self._used) / (now - self._looked_at))
        self._seconds = MOST_SECONDS * busy * busy
        self._looked_at, self._used = now, used
