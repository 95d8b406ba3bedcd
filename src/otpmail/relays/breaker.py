"""Whether a relay is well, by what became of dials and connections: who may dial it when, and how. Rules, no loop.

One rule is above the others: what began before a failure says nothing of what came after it. So failures that come
together count as one, and a mail that is taken on an old connection does not say that the relay takes new ones.
"""

from collections.abc import Callable
from enum import Enum, auto
from math import inf
from typing import Protocol

from otpmail import backoff

_JITTER = 0.25
# Gmail and its like lock an account that is signed in to again and again with the wrong password.
_SIGN_IN_RETRY_SECONDS = 60.0
_SIGN_IN_RETRY_MAX_SECONDS = 900.0
_SHORT_LIFE_SECONDS = 1.0  # who greets, signs in and hangs up does it within that; some close what is idle for 2 s


class Failure(Enum):
    """What can go wrong with a relay."""

    DIAL = auto()  # no connection came about
    SIGN_IN = auto()  # it did not take our credentials
    PROBE = auto()  # it ended the connection over the question how it reads a refused chunk
    HANG_UP = auto()  # it ended one right after it was opened, or with mails in flight and no word on any


class Life(Protocol):
    """What is looked at of a connection that takes no more mails (`relays.connection`)."""

    @property
    def begun(self) -> float:
        """When it began to be dialled."""

    @property
    def age(self) -> float:
        """Seconds since it was opened."""

    @property
    def answered(self) -> int:
        """How many mails the relay has taken or refused."""

    @property
    def is_unanswered(self) -> bool:
        """Whether it was handed mails, and the relay has accepted or refused none of them."""

    @property
    def lost_cause(self) -> str:
        """Why the relay, or the network, ended it; empty where we leave."""


class _Row:
    """Failures of one kind in a row."""

    def __init__(self) -> None:
        self.count = 0
        self._last = -inf

    def tells(self, begun: float) -> bool:
        """Whether something that began then says anything new: it began after the last failure."""
        return begun > self._last

    def add(self, now: float) -> None:
        self.count += 1
        self._last = now


class Breaker:
    """Opens at a failure, for longer each time; closed again when the relay has proved to be well.

    Times are on the caller's clock, in seconds. The wait is `first`, twice as long at each failure in a row, at most
    `most`; chunks are doubted for `doubt` seconds. `random` gives [0, 1): without jitter, services that lost the same
    relay would come back to it at the same moment.
    """

    def __init__(self, random: Callable[[], float], *, first: float, most: float, doubt: float) -> None:
        self.closed = True
        self.over_sign_in = False  # whether it was a refused sign-in that opened it
        self.next_try = 0.0
        self._random = random
        self._first = first
        self._most = max(first, most)
        self._doubt = doubt
        self._failures = _Row()
        self._hang_ups = _Row()
        self._failed_probes = _Row()
        self._doubted_until = 0.0

    def __repr__(self) -> str:
        return f"<Breaker {'closed' if self.closed else f'open, {self._failures.count} failures'}>"

    @property
    def hangs_up(self) -> bool:
        """Whether the relay hung up the last time, so that a connection may not last either."""
        return self._hang_ups.count > 0

    @property
    def troubled(self) -> bool:
        """Whether a mail that the relay takes tells anything: something has failed, and is not made up for."""
        return self._hang_ups.count > 0 or self.next_try > 0 or not self.closed

    def doubts_chunks(self, now: float) -> bool:
        """Whether mails are to go by DATA, since two probes in a row ended their connections.

        For a time only: the network may have been at fault, twice. The first that fails after that renews the doubt.
        """
        return now < self._doubted_until

    def failed(self, failure: Failure, *, begun: float, now: float) -> bool:
        """Note that what began then has failed now; returns whether it is more than may be the network's doing.

        A first hang-up is not: the next dial goes at once.
        """
        if failure is Failure.HANG_UP:
            if not self._hang_ups.tells(begun):
                return False
            self._hang_ups.add(now)
            if self._hang_ups.count == 1:
                return False
        if failure is Failure.PROBE and self._failed_probes.tells(begun):
            self._failed_probes.add(now)
            if self._failed_probes.count > 1:
                self._doubted_until = now + self._doubt
        self._open(begun, now, over_sign_in=failure is Failure.SIGN_IN)
        return True

    def opened(self, *, begun: float, probed: bool) -> None:
        """A sign-in was taken, which says that the next one will be, and no more than that; also of the probe."""
        if probed and self._failed_probes.tells(begun):
            self._failed_probes.count = 0
        if self.over_sign_in and self._failures.tells(begun):
            self._close()

    def took_mail(self, begun: float) -> bool:
        """The relay took a mail on a connection dialled then; returns whether others may dial now that could not."""
        if self._hang_ups.tells(begun):
            self._hang_ups.count = 0
        if self.closed:
            rested, self.next_try = self.next_try, 0.0
            return rested > 0
        # What it says on a connection from before a refused sign-in says nothing of the next one.
        if self.over_sign_in or not self._failures.tells(begun):
            return False
        self._close()
        return True

    def ended(self, life: Life, now: float) -> bool:
        """Judge a connection that takes no more mails; returns whether it is a failure (`failed`)."""
        if life.answered:
            if self._hang_ups.tells(life.begun):
                self._hang_ups.count = 0
            return False
        if not life.lost_cause:
            return False
        if life.is_unanswered or life.age < _SHORT_LIFE_SECONDS:
            return self.failed(Failure.HANG_UP, begun=life.begun, now=now)
        self._rest(now)
        return False

    def slot_freed(self, now: float) -> None:
        """One of ours is closed: where the relay allows only so many, one more may be had now. The row begins anew."""
        self._one_try(now)

    def _rest(self, now: float) -> None:
        """The relay closed a connection that nothing was sent on, as is its right.

        The next one might fare the same, so it is not dialled at once: else a service with nothing to send would sign
        in all day. That is no failure, and the wait does not grow, since a mail may come at any moment.
        """
        when = now + backoff.jittered(self._first, _JITTER, self._random)
        if not self.closed:
            self._one_try(when)
        elif now >= self.next_try:  # else it is one of several that end together
            self.next_try = when

    def _one_try(self, when: float) -> None:
        if not self.closed and not self.over_sign_in:
            self._failures.count = 0
            self.next_try = min(self.next_try, when)

    def _open(self, begun: float, now: float, *, over_sign_in: bool) -> None:
        lockout = over_sign_in and not self.over_sign_in  # its wait is the longer one, so it counts all the same
        if not self._failures.tells(begun) and not lockout:
            return
        if lockout:
            self._failures.count = 0
        first, most = self._first, self._most
        if over_sign_in:
            first, most = _SIGN_IN_RETRY_SECONDS, max(_SIGN_IN_RETRY_MAX_SECONDS, self._most)
        self._failures.add(now)
        delay = backoff.exponential(self._failures.count, first=first, cap=most)
        self.closed = False
        self.over_sign_in = over_sign_in
        self.next_try = now + backoff.jittered(delay, _JITTER, self._random)

    def _close(self) -> None:
        self._failures.count = 0
        self.closed = True
        self.over_sign_in = False
        self.next_try = 0.0
