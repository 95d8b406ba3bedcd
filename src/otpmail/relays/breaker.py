"""When a relay may be dialled next, by the results of earlier dials and connections. Rules, no loop.

One rule is above the others: a dial or connection that began before a failure proves nothing after it. So failures that
come together count as one, and a mail accepted on an old connection does not prove that the relay takes new ones.
"""

from collections.abc import Callable
from enum import Enum, auto
from math import inf
from typing import Protocol

from otpmail import backoff
from otpmail.errors import ConnectFailed, ProbeFailed, SignInRefused, Unreachable
from otpmail.smtp.reply_kind import is_over_errors

_JITTER = 0.25
# Gmail and other providers lock an account after many sign-ins with the wrong password.
_SIGN_IN_RETRY_SECONDS = 60.0
_SIGN_IN_RETRY_MAX_SECONDS = 900.0
_SHORT_LIFE_SECONDS = 1.0  # a relay that hangs up after the sign-in does so within that; some close after 2 s idle


class Failure(Enum):
    """The kinds of failures of a relay."""

    DIAL = auto()  # no connection was opened
    UNREACHABLE = auto()  # none, since no address took one or greeted
    SIGN_IN = auto()  # it refused the credentials
    PROBE = auto()  # it ended the connection over the probe (`smtp.probe`)
    PROBE_COUNTED = auto()  # the same, and said that it did so over the number of errors
    HANG_UP = auto()  # it ended a connection right after opening, or with mails in flight and no reply to any

    @classmethod
    def of(cls, error: ConnectFailed) -> "Failure":
        """Return the kind of a dial's failure."""
        match error:
            case SignInRefused():
                return cls.SIGN_IN
            case Unreachable():
                return cls.UNREACHABLE
            case ProbeFailed():
                return cls.PROBE_COUNTED if is_over_errors(error.code, error.reply) else cls.PROBE
            case _:
                return cls.DIAL


_DOWN = "the relay gives no usable connection"
_EFFECTS = {
    Failure.SIGN_IN: "the relay refuses the sign-in of this service",
    Failure.UNREACHABLE: "the relay can't be reached",
    Failure.HANG_UP: "the relay ends its connections",
}
"""The words about a failure for callers. Errors have more, for the operator alone: hosts, accounts, replies."""


class Life(Protocol):
    """The part of a connection that the breaker reads once it takes no more mails (`relays.connection`)."""

    @property
    def begun(self) -> float:
        """When it began to be dialled."""

    @property
    def age(self) -> float:
        """Seconds since it was opened."""

    @property
    def answered(self) -> int:
        """How many mails the relay has accepted or refused."""

    @property
    def is_unanswered(self) -> bool:
        """Whether it was handed mails, and the relay has accepted or refused none of them."""

    @property
    def lost_cause(self) -> str:
        """Why the relay, or the network, ended it; empty if we close it."""


class _Row:
    """Failures of one kind in a row."""

    def __init__(self) -> None:
        self.count = 0
        self._last = -inf

    def is_news(self, begun: float) -> bool:
        """Whether something that began then proves anything, since it began after the last failure."""
        return begun > self._last

    def add(self, now: float) -> None:
        self.count += 1
        self._last = now


class Breaker:
    """Opens at a failure, for longer each time; closes again when the relay has proved to be well.

    Times are on the caller's clock, in seconds. The wait is `first`, twice as long after each failure in a row, at most
    `most`. After failed probes, or one that the relay counted as an error, BDAT is avoided for `doubt` seconds.
    `random` gives [0, 1): without jitter, services that lost the same relay would come back to it at the same moment.
    `spares_first`: a first hang-up does not count, since the network may have caused it and there is no other relay.
    """

    def __init__(
        self, random: Callable[[], float], *, first: float, most: float, doubt: float, spares_first: bool = True
    ) -> None:
        self.closed = True
        self.over_sign_in = False  # whether a refused sign-in opened it
        self.effect = _DOWN  # why it is open, in words that any caller may read
        self.next_try = 0.0
        self._random = random
        self._first = first
        self._most = max(first, most)
        self._doubt = doubt
        self._spares_first = spares_first
        self._failures = _Row()
        self._hang_ups = _Row()
        self._failed_probes = _Row()
        self._avoided_until = 0.0
        self._changed = -inf

    def __repr__(self) -> str:
        return f"<Breaker {'closed' if self.closed else f'open, {self._failures.count} failures'}>"

    @property
    def hangs_up(self) -> bool:
        """Whether the relay hung up the last time, so that the next connection may not last either."""
        return self._hang_ups.count > 0

    @property
    def has_failures(self) -> bool:
        """Whether something has failed, and a mail that the relay accepts may prove that it is well again."""
        return self._hang_ups.count > 0 or not self.closed

    def avoids_chunks(self, now: float) -> bool:
        """Whether mails go by DATA, since two probes in a row ended their connections.

        For a time only, since the network may have failed twice. The next probe that fails after that renews it.
        """
        return now < self._avoided_until

    def failed(self, failure: Failure, *, begun: float, now: float) -> bool:
        """Note that a dial or connection that began then has failed now; returns whether it counts as a failure.

        A probe that the relay counted as an error does not: the next dial sends none, and may begin at once.
        """
        if failure is Failure.PROBE_COUNTED:
            self._avoided_until = now + self._doubt
            return False
        if begun <= self._changed:
            return False
        if failure is Failure.HANG_UP:
            if not self._hang_ups.is_news(begun):
                return False
            self._hang_ups.add(now)
            if self._hang_ups.count == 1 and self._spares_first:
                return False
        if failure is Failure.PROBE and self._failed_probes.is_news(begun):
            self._failed_probes.add(now)
            if self._failed_probes.count > 1:
                self._avoided_until = now + self._doubt
        self._open(begun, now, failure)
        return True

    def doubts(self, begun: float) -> bool:
        """Whether a connection that began to be dialled then is as likely to end as the one over which it opened."""
        return not (self.closed or self.over_sign_in or self._failures.is_news(begun))

    def opened(self, *, begun: float, probed: bool) -> None:
        """A sign-in succeeded, and a probe if there was one. That proves that the next ones will, and no more."""
        if probed and self._failed_probes.is_news(begun):
            self._failed_probes.count = 0
        if self.over_sign_in and self._failures.is_news(begun):
            self._close()

    def took_mail(self, begun: float) -> bool:
        """The relay accepted a mail on a connection dialled then; returns whether it has closed the breaker."""
        if self._hang_ups.is_news(begun):
            self._hang_ups.count = 0
        # A connection from before a refused sign-in proves nothing of the next sign-in.
        if self.closed or self.over_sign_in or not self._failures.is_news(begun):
            return False
        self._close()
        return True

    def ended(self, life: Life, now: float) -> bool:
        """Judge a connection that takes no more mails; returns whether that counts as a failure (`failed`)."""
        if life.answered:
            if self._hang_ups.is_news(life.begun):
                self._hang_ups.count = 0
            return False
        if not life.lost_cause:
            return False
        if life.is_unanswered or life.age < _SHORT_LIFE_SECONDS:
            return self.failed(Failure.HANG_UP, begun=life.begun, now=now)
        # The relay closed a connection on which nothing was sent, which is no failure. The next one may end so too.
        self._one_try(now + backoff.jittered(self._first, _JITTER, self._random))
        return False

    def settings_changed(self, now: float) -> None:
        """The next dial is another one, as by a new password, so it need not wait because the last one failed.

        Nor does a dial that has begun, and fails after this, prove anything about the next one.
        """
        self._changed = now
        if not self.closed:
            self._failures.count = 0
            self.next_try = min(self.next_try, now)

    def slot_freed(self, now: float) -> None:
        """One of our connections is closed, so a relay that limits their number may take one more dial at once."""
        self._one_try(now)

    def _one_try(self, when: float) -> None:
        if not self.closed and not self.over_sign_in:
            self._failures.count = 0
            self.next_try = min(self.next_try, when)

    def _open(self, begun: float, now: float, failure: Failure) -> None:
        over_sign_in = failure is Failure.SIGN_IN
        stricter = over_sign_in and not self.over_sign_in  # it counts all the same, as its wait is longer
        if not self._failures.is_news(begun) and not stricter:
            return
        if stricter:
            self._failures.count = 0
        first, most = self._first, self._most
        if over_sign_in:
            first, most = _SIGN_IN_RETRY_SECONDS, max(_SIGN_IN_RETRY_MAX_SECONDS, self._most)
        self._failures.add(now)
        delay = backoff.exponential(self._failures.count, first=first, cap=most)
        self.closed = False
        self.over_sign_in = over_sign_in
        self.effect = _EFFECTS.get(failure, _DOWN)
        self.next_try = now + backoff.jittered(delay, _JITTER, self._random)

    def _close(self) -> None:
        self._failures.count = 0
        self.closed = True
        self.over_sign_in = False
        self.effect = _DOWN
        self.next_try = 0.0
