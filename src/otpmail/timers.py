"""The types of a timer, for what has the loop's `call_later` passed in."""

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """As much of asyncio.TimerHandle as is used."""

    def cancel(self) -> None:
        """Never call back."""


CallLater = Callable[..., Timer]
"""The loop's `call_later`: seconds from now, a callback, and its arguments."""
