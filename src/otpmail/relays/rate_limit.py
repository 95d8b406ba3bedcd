"""How many mails a second a relay is sent at most: EMAIL_RATE, or less while the relay says that it is too fast.

Additive increase, multiplicative decrease, as TCP does it. So the rate of a relay is found without asking it, and
several services that share an account come to share its rate. Rules, no clock.
"""

_BURST_SECONDS = 0.05  # timers are not exact; so many seconds' mails may be made up for

_SLOWEST = 1 / 60
"""Mails a second, below which the rate does not fall."""

_SLOWEST_AT_FIRST = 1 / 5
"""The same in the first minute: most relays that count by the minute take mails again when that is over."""

_MINUTE = 60.0

_KEPT = 0.5  # the part of the rate that a refusal leaves
_RECOVERY_SECONDS = 60.0  # for the rate to grow by as much as it was when the relay refused a mail
_BEYOND = 2.0  # times the rate at which a mail was refused: from there on it seems that the relay takes more now
_LEAST_MEASURED = 1.0  # mails a second; what was sent in the last seconds says little below that
_ECHO_SECONDS = 1.0  # refusals of mails that were sent before the rate was lowered come within this time


class RateLimit:
    """Evenly spaced slots for mails, at most `ceiling` a second; unlimited without one until the relay refuses a mail.

    After a refusal it waits for one mail to be accepted before the rate grows again. Until then each refusal halves the
    rate. So a relay that takes nothing for a minute gets about fifteen mails in that minute, and then fewer. Times are
    on the caller's clock, in seconds.
    """

    def __init__(self, ceiling: float | None) -> None:
        self._ceiling = ceiling
        self._next = 0.0  # when the next slot would be, if every slot before it had been used in time
        self._low = 0.0  # the rate after the last refusal; 0 while nothing is refused
        self._grows_from: float | None = None  # since when it grows, once a mail was accepted
        self._growth = 0.0  # mails a second, each second
        self._refused_at = 0.0  # the rate at which the relay refused a mail
        self._top = 0.0  # the rate at which it is no longer lowered
        self._lowered_at = 0.0
        self._refused_since = 0.0  # when it was lowered first with no mail accepted since
        self._tried = False  # whether a mail was sent since it was lowered
        self._echoes = 0  # mails that were in flight then, and may be refused too

    def __repr__(self) -> str:
        rate = self._low or self._ceiling
        return f"<RateLimit {f'{rate:g}/s' if rate else 'unlimited'}{' after a refusal' if self._low else ''}>"

    @property
    def limited(self) -> bool:
        """Whether mails must wait for their slots."""
        return self._low > 0 or self._ceiling is not None

    @property
    def lowered(self) -> bool:
        """Whether the relay has refused mails as too fast, and the rate has not recovered."""
        return self._low > 0

    @property
    def awaits_proof(self) -> bool:
        """Whether the rate grows again once the relay has accepted a mail (`accepted`)."""
        return self._low > 0 and self._grows_from is None

    def rate(self, now: float) -> float | None:
        """Mails a second at present, None for unlimited."""
        while self._low and self._grows_from is not None:
            rate = self._low + self._growth * (now - self._grows_from)
            if rate < min(self._top, _BEYOND * self._refused_at):
                return rate
            if rate >= self._top:
                self._low = 0.0
                break
            self._grows_from += (_BEYOND * self._refused_at - self._low) / self._growth
            self._low = self._refused_at = _BEYOND * self._refused_at
            self._growth *= _BEYOND
        return self._low or self._ceiling

    def wait(self, now: float) -> float:
        """Seconds from `now` until a mail may be sent, 0 for at once."""
        return max(0.0, self._next - now) if self.limited else 0.0

    def take(self, now: float) -> None:
        """Use a slot: a mail is sent `now`."""
        self._tried = True
        rate = self.rate(now)
        if rate:
            gap = 1 / rate
            self._next = max(self._next, now - max(gap, _BURST_SECONDS) + gap) + gap

    def refused(self, now: float, *, recent: float, in_flight: int) -> bool:
        """The relay has refused a mail as too fast; returns whether the rate was lowered for it.

        `recent` is how many mails a second it was sent of late, `in_flight` how many others have no reply yet. Those
        may be refused too, which is no news.
        """
        if self._low and (not self._tried or (self._echoes and now < self._lowered_at + _ECHO_SECONDS)):
            self._echoes -= self._echoes > 0
            return False
        recent = max(recent, self._low or _LEAST_MEASURED)
        before = min(self.rate(now) or recent, recent)
        if not self._low:
            self._top = self._ceiling or _BEYOND * before
        if not self._low or self._grows_from is not None:
            self._refused_at = before
            self._growth = before / _RECOVERY_SECONDS
            self._refused_since = now
        waits_for_minute = before >= _SLOWEST_AT_FIRST and now < self._refused_since + _MINUTE
        self._low = max(_SLOWEST_AT_FIRST if waits_for_minute else _SLOWEST, _KEPT * before)
        self._grows_from = None
        self._lowered_at, self._echoes = now, in_flight
        self._tried = False
        self._next = now + 1 / self._low
        return self._low < before

    def accepted(self, now: float) -> None:
        """The relay has accepted a mail: the rate grows from now on."""
        if self._tried and self.awaits_proof:
            self._grows_from = now
