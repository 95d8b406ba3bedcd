"""Ends a connection whose relay has owed a reply for too long, or whose other end no longer acknowledges packets."""

from collections.abc import Callable
from math import inf

from otpmail.relays.timeouts import Timeouts
from otpmail.smtp.session import Session
from otpmail.timers import CallLater, Timer

GOODBYE_SECONDS = 2.0
"""How long a relay that said 421 may take to close; until then it may answer what it had read."""


class Watchdog:
    """Watches one session with a single timer, which is not reset at every reply.

    All times are in seconds. The relay may owe a reply for as long as `timeouts` say. After 421 it has
    `goodbye_seconds` to close. `unacknowledged` returns for how long the relay's machine has acknowledged nothing. The
    watchdog calls `end` with the cause of the end. The clock and `call_later` are the loop's.
    """

    def __init__(
        self,
        session: Session,
        *,
        timeouts: Timeouts,
        goodbye_seconds: float,
        unacknowledged: Callable[[], float],
        end: Callable[[str], None],
        clock: Callable[[], float],
        call_later: CallLater,
    ) -> None:
        self._session = session
        self._timeouts = timeouts
        self._goodbye_seconds = goodbye_seconds
        self._unacknowledged = unacknowledged
        self._end = end
        self._clock = clock
        self._call_later = call_later
        self._timer: Timer | None = None
        self._gone_since = inf  # when a look found that the other end acknowledges nothing
        self.is_awake = False
        self.last_progress = clock()

    def __repr__(self) -> str:
        return f"<Watchdog {'awake' if self.is_awake else 'asleep'}>"

    def wake(self) -> None:
        """Watch from now on while the relay owes a reply."""
        if self._session.awaits_reply:
            self._start(self._timeouts.least, self._look)

    def await_close(self) -> None:
        """End the connection if the relay, which has said 421, has not closed it after `goodbye_seconds`."""
        self._start(self._goodbye_seconds, self._stayed_open)

    def stop(self) -> None:
        """Watch no more."""
        self.is_awake = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Watch no more, and hold nothing of the connection, whose memory is free without a collection of garbage."""
        self.stop()
        self._unacknowledged, self._end = float, _nothing

    def _start(self, seconds: float, then: Callable[[], None]) -> None:
        self.stop()
        self.is_awake = True
        self._timer = self._call_later(seconds, then)

    def _look(self) -> None:
        self.stop()
        if not self._session.awaits_reply:
            self._gone_since = inf  # the next look is no second one in a row
            return
        limit = self._timeouts.of(self._session.due)
        left = self.last_progress + limit - self._clock()
        if left <= 0:
            self._end(f"no answer within {limit:g} s")
        elif self._is_gone():
            self._end("the relay's machine acknowledges nothing any more")
        else:
            # A reply that is due by then may have the shorter timeout.
            self._start(min(left, self._timeouts.least), self._look)

    def _is_gone(self) -> bool:
        """Whether two looks in a row, EMAIL_TIMEOUT apart, have found that nothing was acknowledged.

        One look is not enough. While the relay judges a mail, nothing is sent and nothing acknowledged. The first
        packets of the next mail may then be lost though the relay's machine is there.
        """
        now = self._clock()
        if self._unacknowledged() < self._timeouts.step:
            self._gone_since = inf
        elif self._gone_since == inf:
            self._gone_since = now
        return now - self._gone_since >= self._timeouts.step

    def _stayed_open(self) -> None:
        self.stop()
        self._session.stayed_open()
        self._end(self._session.goodbye)


def _nothing(_: str) -> None:
    """Stand in for the end of a connection that has ended."""
