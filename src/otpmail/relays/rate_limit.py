"""How many mails a second a relay is sent at most: a rule without a clock of its own."""

_BURST_SECONDS = 0.05  # what may have been saved up: timers are not exact, and no rate is to be lost over that


class RateLimit:
    """Slots for mails, `rate` a second, or as many as anybody wants when `rate` is None."""

    def __init__(self, rate: float | None) -> None:
        self.limited = rate is not None
        self._gap = 1 / rate if rate else 0.0
        self._burst = max(self._gap, _BURST_SECONDS)
        self._next = 0.0  # when the next slot is, had all before it been used in time

    def __repr__(self) -> str:
        return f"<Pace {1 / self._gap:g}/s>" if self._gap else "<Pace unlimited>"

    def wait(self, now: float) -> float:
        """Seconds from `now` until a mail may be sent, 0 for at once."""
        return max(0.0, self._next - now)

    def take(self, now: float) -> None:
        """Use a slot up: a mail is sent `now`."""
        if self._gap:
            self._next = max(self._next, now - self._burst + self._gap) + self._gap
