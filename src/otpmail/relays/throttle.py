"""How much a relay is given at once: connections, and mails a second. Learned from its refusals."""

from collections.abc import Callable
from typing import NamedTuple

from otpmail.events import (
    ConnectionLimitDropped,
    ConnectionLimitLearned,
    Observer,
    RateLowered,
    RateRestored,
)
from otpmail.relays.concurrency import Concurrency
from otpmail.relays.rate_limit import RateLimit
from otpmail.timers import CallLater, Timer

_GATHER_SECONDS = 1.0  # connections that are dialled together are refused together: the log has the last number only


class Limits(NamedTuple):
    """The connections and the mails a second that a relay is given at present; None for any number."""

    relay: str
    connections: int
    rate: float | None


class Throttle:
    """The limits of one relay that all workers share, with an event for each change that an operator may want to see.

    `rate` is EMAIL_RATE, in mails a second. `now` is the clock, in seconds, `call_later` the loop's.
    """

    def __init__(
        self,
        relay: str,
        observer: Observer,
        *,
        workers: int,
        rate: float | None,
        now: Callable[[], float],
        call_later: CallLater,
    ) -> None:
        self.concurrency = Concurrency(workers)
        self.is_limited = rate is not None
        """Whether mails wait for slots (`RateLimit.limited`). A plain value, since each mail asks for it."""
        self._rate_limit = RateLimit(rate)
        self._relay = relay
        self._observer = observer
        self._workers = workers
        self._now = now
        self._call_later = call_later
        self._announced: int | None = None  # the limit of connections that was announced last
        self._gathering: Timer | None = None

    def __repr__(self) -> str:
        return f"<Throttle {self.concurrency!r} {self._rate_limit!r}>"

    @property
    def limits(self) -> Limits:
        """The limits that the relay is given at present."""
        return Limits(self._relay, self.concurrency.present, self._rate_limit.rate(self._now()))

    # Mails a second.

    @property
    def awaits_proof(self) -> bool:
        """Whether the rate grows again once the relay has accepted a mail."""
        return self._rate_limit.awaits_proof

    @property
    def lowered(self) -> bool:
        """Whether the relay has refused mails as too fast, and the rate has not recovered."""
        return self._rate_limit.lowered

    @property
    def refuses_all(self) -> bool:
        """Whether the relay has refused each mail as too fast for some time (`RateLimit.refuses_all`)."""
        return self._rate_limit.refuses_all

    def pause(self) -> float:
        """Seconds until the relay may be sent another mail, 0 for at once."""
        return self._rate_limit.wait(self._now())

    def urgent_pause(self) -> float:
        """Seconds until the relay may be sent another urgent mail, 0 for at once."""
        return self._rate_limit.wait_urgent(self._now())

    def take_slot(self, *, urgent: bool) -> None:
        """A mail is being sent now."""
        lowered = self._rate_limit.lowered
        self._rate_limit.take(self._now(), urgent=urgent)
        self.is_limited = self._rate_limit.limited
        if lowered and not self._rate_limit.lowered:
            self._observer.notify(RateRestored(self._relay))

    def accepted_mail(self) -> None:
        """The relay has accepted a mail. To be called for each while it is `lowered`."""
        self._rate_limit.accepted(self._now())

    def was_too_fast(self, recent: float, in_flight: int) -> None:
        """The relay has refused a mail as one too many in its time (`RateLimit.refused`)."""
        again = self._rate_limit.lowered
        if self._rate_limit.refused(self._now(), recent=recent, in_flight=in_flight):
            self.is_limited = True
            self._observer.notify(RateLowered(self._relay, self.limits.rate or 0.0, again=again))

    # Connections.

    def is_full(self) -> bool:
        """Whether the relay takes no further connection now (`Concurrency.is_full`)."""
        full = self.concurrency.is_full(self._now())
        known, before = self.concurrency.known, self._announced
        if before is not None and (known is None or known > before):
            self._announced = known
            self._observer.notify(ConnectionLimitDropped(self._relay, before))
        return full

    def was_one_too_many(self) -> None:
        """The relay has refused a connection, or a mail on it, because of the number of connections."""
        self.concurrency.refused(self._now())
        if self._gathering is None:
            self._gathering = self._call_later(_GATHER_SECONDS, self._announce)

    def _announce(self) -> None:
        self._gathering = None
        known = self.concurrency.known
        if known is not None and known != self._announced:
            self._announced = known
            self._observer.notify(ConnectionLimitLearned(self._relay, known, self._workers))
