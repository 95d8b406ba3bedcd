"""A timer that rings when its test says so."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Timer:
    """Rings `at` a time of the test's own clock, unless it is cancelled before."""

    at: float
    ring: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        """Do not ring."""
        self.cancelled = True
