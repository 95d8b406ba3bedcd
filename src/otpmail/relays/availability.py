"""Whether a relay is here, away, or not in use; whoever observes is told of each change once, not of a moment's gap."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from otpmail.events import DialFailed, Observer, RelayDown, RelayIdle, RelayUp

NOTICE_SECONDS = 1.0  # how long no connection may be open before the relay counts as away


class Timer(Protocol):
    """What may still be called off."""

    def cancel(self) -> None:
        """Call it off."""


class Availability:
    """Follows one relay's connections. `open` is how many there are, `wanted` how many wait for one.

    `retry_after` says in how many seconds the next dial may go; `call_later` is the loop's.
    """

    def __init__(
        self,
        name: str,
        observer: Observer,
        *,
        retry_after: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Timer],
    ) -> None:
        self.open = 0
        self.wanted = 0
        self._name = name
        self._observer = observer
        self._retry_after = retry_after
        self._call_later = call_later
        self.away = False  # no connection is open, and one was to be had: not so where the relay is not in use
        self._here: bool | None = None  # None while nothing is known: before the first dial, and when it is not in use
        self._leaving = False  # whether we closed the last connection, and nothing has failed since
        self._failure = ""  # the last one
        self._why = ""  # the last that is known of it being away
        self._notice: Timer | None = None

    def __repr__(self) -> str:
        return f"<Presence {({None: 'unused', True: 'here', False: 'away'})[self._here]}, {self.open} open>"

    def opened(self, mode: str, window: int, *, doubtful: bool) -> None:
        """A connection is open. A doubtful one has to last before anybody is told that the relay is back."""
        self.open += 1
        self._cancel_notice()
        if doubtful:
            self._notice = self._call_later(NOTICE_SECONDS, partial(self._lasted, mode, window))
        else:
            self._lasted(mode, window)

    def failed(self, why: str) -> None:
        """A dial has failed, or what counts as one."""
        self._failure = self._why = why
        self._leaving = False
        if self.open == 0 and not self.away and self._notice is None:
            self._missed()
        else:
            self._observer.notify(DialFailed(self._name, why, self._retry_after()))

    def refused(self) -> None:
        """Somebody wants a connection, and after what failed before it must not be dialled yet: that is not unused."""
        if self.open == 0 and self._notice is None:
            self._why = self._failure
            self._missed()

    def emptied(self, lost_cause: str, *, rest: float) -> None:
        """The last connection is gone; `lost_cause` is empty where we left. The next dial goes in `rest` seconds."""
        self._why = f"the last connection ended: {lost_cause or 'it was worn, old or idle'}"
        self._leaving = not lost_cause
        if self._notice is None:
            self._notice = self._call_later(rest + NOTICE_SECONDS, self._unseen)

    def _lasted(self, mode: str, window: int) -> None:
        self._cancel_notice()
        if not self.open:  # it was to be waited whether it hangs up again
            self._unseen()
        elif self._here is not True:
            self._here, self.away = True, False
            self._observer.notify(RelayUp(self._name, mode, window))

    def _missed(self) -> None:
        self._cancel_notice()
        if self._here is not False:
            self._here, self.away = False, True
            self._observer.notify(RelayDown(self._name, self._why, self._retry_after()))

    def _unseen(self) -> None:
        """No connection has been open for a while: it is away, unless we have left it and nobody wants one."""
        self._cancel_notice()
        if self.wanted or not self._leaving:
            self._missed()
        elif self._here is not None:
            self._here, self.away = None, False
            self._observer.notify(RelayIdle(self._name))

    def _cancel_notice(self) -> None:
        if self._notice is not None:
            self._notice.cancel()
            self._notice = None
