"""How many mails a second a relay is sent at most (EMAIL_RATE). Rules, no clock."""

_BURST_SECONDS = 0.05  # timers are not exact; so many seconds' mails may be made up for


class RateLimit:
    """Evenly spaced slots for mails, `rate` a second; unlimited when `rate` is None."""

    def __init__(self, rate: float | None) -> None:
        self.limited = rate is not None
        self._gap = 1 / rate if rate else 0.0
        self._burst = max(self._gap, _BURST_SECONDS)
        self._next = 0.0  # when the next slot would be, if every slot before it had been used in time

    def __repr__(self) -> str:
        return f"<RateLimit {1 / self._gap:g}/s>" if self._gap else "<RateLimit unlimited>"

    def wait(self, now: float) -> float:
        """Seconds from `now` until a mail may be sent, 0 for at once."""
        return max(0.0, self._next - now)

    def take(self, now: float) -> None:
        """Use a slot: a mail is sent `now`."""
        if self._gap:
            self._next = max(self._next, now - self._burst + self._gap) + self._gap
