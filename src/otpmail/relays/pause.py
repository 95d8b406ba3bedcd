"""The last pause of a connection: whether the relay ended it for idleness, also when that crossed a mail. No clock."""

IDLE_SECONDS = 0.2
"""After its last reply: a relay that closes later does so for idleness, not over its mails."""


class Pause:
    """How long a connection was idle before the mails in flight, and at its end.

    `seconds` is how long it had been idle when the first of them was sent, and `replies` how many replies there had
    been. `at_end` is for how many seconds it was idle when the relay closed it; None if it was not.
    """

    def __init__(self, idle_seconds: float = IDLE_SECONDS) -> None:
        self.seconds = 0.0
        self.replies = 0
        self.at_end: float | None = None
        self._idle_seconds = idle_seconds

    def __repr__(self) -> str:
        return f"<Pause of {self.seconds:g} s>"

    def is_crossed(self, replies: int) -> bool:
        """Whether a goodbye may have crossed the first mail after the pause: that has no answer, or only the goodbye.

        `replies` is how many replies there are now.
        """
        return self.seconds >= self._idle_seconds and replies <= self.replies + 1

    def end(self, replies: int, since_progress: float, *, in_flight: bool) -> bool:
        """Note that the relay ends the connection; returns whether it does so over its mails."""
        if in_flight:
            return not self.is_crossed(replies)
        if since_progress < self._idle_seconds:
            return True
        self.at_end = since_progress
        return False
