"""A clock for stores that a test moves."""


class Clock:
    """Seconds since the epoch, which stand until a test changes `time`."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.time
