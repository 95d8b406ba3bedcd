"""How many mails a second a relay is sent at most: EMAIL_RATE, or less while the relay says that it is too fast.

Additive increase, multiplicative decrease, as TCP does it. So the rate of a relay is found without asking it, and
several services that share an account come to share its rate. Rules, no clock.
"""

from math import inf

_BURST_SECONDS = 0.05  # timers are not exact; so many seconds' mails may be made up for

_MINUTE = 60.0
_MOST_SECONDS = 60.0  # between two tries while the relay refuses all
_MOST_SECONDS_AT_FIRST = 5.0  # the same in the first minute: most relays that count by the minute take mails after it
_MOST_SECONDS_URGENT = 10.0  # between two tries with urgent mails

_KEPT = 0.7  # the part of the rate at which mails go on after a refusal
_NEAR = 0.9  # the part of it that is soon reached again; the last tenth may serve others that use the same account
_NEAR_SECONDS = 5.0
_RECOVERY_SECONDS = 60.0  # for the rate to grow by as much as it was when the relay refused a mail
_BEYOND = 2.0  # times the rate at which a mail was refused: from there on it seems that the relay takes more now
_LEAST_SECONDS = 1.0
_LEAST_MEASURED = 1.0  # mails a second; what was answered in the last seconds says little below that
_MUCH_LESS = 0.5  # a relay that took less than this part of the rate has a longer memory than the rate tells
_ECHO_SECONDS = 1.0  # refusals of mails that were sent before the rate was lowered come within this time
_PATIENCE_SECONDS = 1.0  # a relay that has refused mails for longer than this refuses all


class _Measure:
    """How many mails a second the relay took while mails waited for their slots, since it refused one."""

    def __init__(self) -> None:
        self._taken, self._seconds, self._last = 0, 0.0, 0.0

    def start(self, now: float) -> None:
        """Begin anew."""
        self._taken, self._seconds, self._last = 0, 0.0, now

    def sent(self, now: float, gap: float) -> None:
        """Count the time since the last mail, as far as it was a wait for the slot, `gap` seconds after that one."""
        self._seconds += min(now - self._last, gap + _BURST_SECONDS)
        self._last = now

    def accepted(self) -> None:
        """Count a mail that the relay took."""
        self._taken += 1

    def rate(self) -> float:
        """Mails a second; infinity while the time is too short to tell."""
        return self._taken / self._seconds if self._seconds >= _LEAST_SECONDS else inf


class RateLimit:
    """Evenly spaced slots for mails, at most `ceiling` a second; unlimited without one until the relay refuses a mail.

    After a refusal one mail is tried after the other, twice as long after the last one each time. Once the relay takes
    one, mails go on at seven tenths of the rate at which it refused. So a relay that takes nothing for a minute gets
    about fifteen mails in that minute, and then fewer. Urgent mails wait for urgent ones only: each takes the next slot
    of the others. Times are on the caller's clock, in seconds.
    """

    def __init__(self, ceiling: float | None) -> None:
        self._ceiling = ceiling
        # When the next slots would be, if every slot before them had been used in time.
        self._next = self._next_urgent = 0.0
        self._gap = 0.0  # seconds between the last slot and the one before
        self._low = 0.0  # the rate from which it grows; 0 while nothing is refused
        self._grows_from: float | None = None  # since when it grows, once a mail was accepted
        self._growth = self._until = 0.0  # mails a second, each second; the rate at which that changes
        self._refused_at = 0.0  # the rate at which the relay refused a mail
        self._top = 0.0  # the rate at which it is no longer lowered
        self._pause = 0.0  # seconds between two tries while the relay refuses all
        self._refused_since = self._lowered_at = 0.0  # the first and the last refusal with no mail accepted since
        self._tried = False  # whether a mail was sent since it was lowered
        self._echoes = 0  # mails that were in flight then, and may be refused too
        self._measure = _Measure()
        self._most_urgent = max(_MOST_SECONDS_URGENT, 1 / ceiling if ceiling else 0.0)

    def __repr__(self) -> str:
        rate = 1 / self._pause if self.awaits_proof else self._low or self._ceiling
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

    @property
    def refuses_all(self) -> bool:
        """Whether the relay has refused each mail for some time, not only for a moment."""
        return self.awaits_proof and self._lowered_at >= self._refused_since + _PATIENCE_SECONDS

    def rate(self, now: float) -> float | None:
        """Mails a second at present, None for unlimited."""
        if self.awaits_proof:
            return 1 / self._pause
        while self._low and self._grows_from is not None:
            rate = self._low + self._growth * (now - self._grows_from)
            if rate < min(self._top, self._until):
                return rate
            if rate >= self._top:
                self._low = 0.0
                break
            self._grows_from += (self._until - self._low) / self._growth
            self._low = self._until
            self._grow(max(self._until, self._refused_at))
        return self._ceiling

    def wait(self, now: float) -> float:
        """Seconds from `now` until a mail may be sent, 0 for at once."""
        return max(0.0, self._next - now) if self.limited else 0.0

    def wait_urgent(self, now: float) -> float:
        """Seconds from `now` until an urgent mail may be sent, 0 for at once."""
        return max(0.0, self._next_urgent - now) if self.limited else 0.0

    def take(self, now: float, *, urgent: bool = False) -> None:
        """Use a slot: a mail is sent `now`."""
        self._tried = True
        rate = self.rate(now)
        if not rate:
            return
        self._measure.sent(now, self._gap)
        gap = self._gap = 1 / rate
        earliest = now - max(gap, _BURST_SECONDS) + gap
        self._next = max(self._next, earliest) + gap
        if urgent:
            self._next_urgent = max(self._next_urgent, earliest) + min(gap, self._most_urgent)

    def refused(self, now: float, *, recent: float, in_flight: int) -> bool:
        """The relay has refused a mail as too fast; returns whether the rate was lowered for it.

        `recent` is how many mails a second it answered of late, `in_flight` how many others have no reply yet. Those
        may be refused too, which is no news.
        """
        if self._low and (not self._tried or (self._echoes and now < self._lowered_at + _ECHO_SECONDS)):
            self._echoes -= self._echoes > 0
            return False
        before = self._pause
        if self.awaits_proof:
            is_first_minute = now < self._refused_since + _MINUTE
            self._pause = max(before, min(2 * before, _MOST_SECONDS_AT_FIRST if is_first_minute else _MOST_SECONDS))
        else:
            self._lower(now, max(recent, _LEAST_MEASURED))
            before = 0.0
        self._lowered_at, self._echoes = now, in_flight
        self._tried = False
        self._next, self._next_urgent = now + self._pause, now + min(self._pause, self._most_urgent)
        return self._pause > before

    def accepted(self, now: float) -> None:
        """The relay has accepted a mail: the rate grows from now on."""
        if not self._low:
            return
        self._measure.accepted()
        if self._tried and self.awaits_proof:
            self._grows_from = now
            self._grow(self._refused_at)
            if (soon := _NEAR * self._refused_at) > self._low:
                self._growth, self._until = (soon - self._low) / _NEAR_SECONDS, soon
            self._next = self._next_urgent = now + 1 / self._low

    def _lower(self, now: float, recent: float) -> None:
        """Begin a series of refusals, and decide at which rate mails go on once it is over."""
        rate = self.rate(now)
        before = recent if not rate else min(rate, recent) if not self._low else rate
        if not self._low:
            self._top = self._ceiling or _BEYOND * before
        elif (measured := self._measure.rate()) < _MUCH_LESS * before:
            before = max(measured, 1 / _MOST_SECONDS)
        self._refused_at, self._refused_since = before, now
        self._low = max(1 / _MOST_SECONDS, _KEPT * before)
        self._grows_from, self._pause = None, 1 / self._low
        self._measure.start(now)

    def _grow(self, rate: float) -> None:
        """Grow by as much as this rate in a minute, and faster once it is twice as much."""
        self._growth, self._until = rate / _RECOVERY_SECONDS, _BEYOND * rate
