"""Bodies of requests that come in parts: the memory that they take until a call has them.

A small body that comes in one piece has none of this: the octets that its call counts are enough for it.
"""

from otpmail.limits.memory import Memory
from otpmail.web.ending import Pace

AHEAD = 64 << 10
"""Octets of a body that may wait before its call reads them. Then the connection is read no more."""

SMALL = 16 << 10
"""Octets up to which the body of a running call does not count: its call counts more (`limits.memory`)."""

FULL = "requests that come take their half"

_WAITING = 1024  # octets of a request that waits for its answer, beside its head
_FIELD = 200  # octets of a field beside its characters


class Incoming:
    """A body that counts in the memory. `most` octets of it may be here; `beside` are those of its request.

    `pace` is that of its client while a call waits for the whole body.
    """

    __slots__ = ("_beside", "_counted", "_memory", "most", "pace")

    def __init__(self, memory: Memory, beside: int = 0) -> None:
        self._memory = memory
        self._beside = beside
        self._counted = 0
        self.most = AHEAD
        self.pace: Pace | None = None

    def __repr__(self) -> str:
        return f"<Incoming {self._counted} octets>"

    def fits(self, octets: int) -> bool:
        """Count a body of so many octets from now on, if the memory has room for it. A SMALL one needs none."""
        total = octets + self._beside
        if octets == total <= SMALL and not self._counted:
            return True
        if not self._memory.take_in(total - self._counted):
            return False
        self._counted = total
        return True

    def release(self) -> None:
        """Count nothing; without effect the second time."""
        self._memory.reading -= self._counted
        self._counted = 0


def octets_of_waiting(octets: int, fields: int) -> int:
    """Return what a request takes that waits for its answer, by the octets of its head and the number of fields."""
    return _WAITING + octets + _FIELD * fields
