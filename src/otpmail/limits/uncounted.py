"""The memory that this process takes beyond what is counted: mostly buffers of gRPC."""

from collections.abc import Callable

from otpmail.limits.memory import Memory
from otpmail.limits.resident import resident

LEEWAY = 64 << 20
"""Octets for what is not counted: buffers of connections, free memory in pieces."""


class Uncounted:
    """Measures what the process takes beyond the octets that `memory` counts.

    `usual` is how much that may be: what the process took when this was built, LEEWAY, and a part for requests.
    """

    def __init__(self, memory: Memory, resident: Callable[[], int] = resident) -> None:
        self._memory = memory
        self._resident = resident
        self.usual = resident() + LEEWAY + memory.for_reading

    def __repr__(self) -> str:
        return f"<Uncounted, usually at most {self.usual} octets>"

    def octets(self) -> int:
        """Return how many octets it takes now."""
        memory = self._memory
        return self._resident() - min(memory.used() - memory.ahead, memory.limit)
