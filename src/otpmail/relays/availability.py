"""Whether a relay is up, down or idle. Each change is notified once, and not for a moment without a connection."""

from collections.abc import Callable
from functools import partial

from otpmail.events import DialFailed, Observer, RelayDown, RelayIdle, RelayUp
from otpmail.timers import CallLater, Timer

NOTICE_SECONDS = 1.0
"""How long no connection may be open before the relay counts as down."""


class Availability:
    """Follows the connections to one relay: `open` is how many there are, `wanted` how many workers wait for one.

    `dialling` is how many are being dialled, without one that has failed just now.
    `down` is whether no connection is open although one is wanted, and has not been for longer than a dial takes.

    `retry_after` returns in how many seconds the next dial may start, and `next_dial` when, on the loop's clock.
    `call_later` is the loop's. `on_change` is called when `down` may have changed. `notice_seconds` is how long no
    connection may be open before the relay counts as down.
    """

    def __init__(
        self,
        name: str,
        observer: Observer,
        *,
        retry_after: Callable[[], float],
        next_dial: Callable[[], float],
        call_later: CallLater,
        on_change: Callable[[], None],
        notice_seconds: float = NOTICE_SECONDS,
    ) -> None:
        self.open = 0
        self.wanted = 0
        self.dialling = 0
        self.down = False
        self._name = name
        self._observer = observer
        self._retry_after, self._next_dial = retry_after, next_dial
        self._call_later = call_later
        self._on_change = on_change
        self._notice_seconds = notice_seconds
        self._up: bool | None = None  # None while nothing is known: before the first dial, and while it is idle
        self._closed_by_us = False  # whether we closed the last connection, and nothing has failed since
        self._last_failure = ""
        self._cause = ""  # the last known cause of it being down
        self._named_dial: float | None = None  # the next dial that an event has named last
        self._notice: Timer | None = None
        self._doubtful: Callable[[], None] | None = None  # what the notice does, if it waits for a connection to last

    def __repr__(self) -> str:
        return f"<Availability {({None: 'idle', True: 'up', False: 'down'})[self._up]}, {self.open} open>"

    @property
    def has_others(self) -> bool:
        """Whether a connection is open or being dialled beside the one whose dial has failed just now."""
        return self.open > 0 or self.dialling > 0

    @property
    def is_well(self) -> bool:
        """Whether a connection is open, or we closed the last one and nothing has failed since."""
        return self.open > 0 or self._closed_by_us

    def opened(self, mode: str, window: int, *, doubtful: bool, address: str = "") -> None:
        """A connection is open. The relay is up when a doubtful one has lasted for `notice_seconds`, or is `proved`."""
        self.open += 1
        self._cancel_notice()
        lasted = partial(self._lasted, mode, window, address)
        if doubtful:
            self._notice = self._call_later(self._notice_seconds, lasted)
            self._doubtful = lasted
        else:
            lasted()

    def proved(self) -> None:
        """The relay accepted a mail after it had hung up, so that what is open is not doubtful any more."""
        if self._doubtful is not None and self.open:
            self._doubtful()

    def failed(self, cause: str) -> None:
        """A dial has failed, or the relay has hung up, which counts as one."""
        self._last_failure = self._cause = cause
        self._closed_by_us = False
        if self.dialling:
            self.leave_to_others(cause)
        if self.open == 0 and not self.down and self._notice is None:
            self._set_down()
        else:
            repeated = self._named_dial == self._next_dial()
            self._named_dial = self._next_dial()
            self._observer.notify(DialFailed(self._name, cause, self._retry_after(), repeated))

    def leave_to_others(self, cause: str) -> None:
        """A dial has failed while others are on their way: one of them may open within `notice_seconds`.

        Workers dial at once only while the relay is well.
        """
        if not (self.open or self.down):
            self._last_failure = self._cause = cause
            self._give_notice()

    def refused(self) -> None:
        """A worker wants a connection and may not dial yet, after an earlier failure: the relay is not idle."""
        if self.open == 0 and self._notice is None:
            self._cause = self._last_failure
            self._set_down()

    def emptied(self, lost_cause: str, *, is_idle: bool) -> None:
        """The last connection has ended; `lost_cause` is empty if we closed it.

        `is_idle`: it ended since there was nothing to send. Then the relay stays what it was until the next dial.
        """
        self._cause = f"the last connection ended: {lost_cause or 'it was worn, old or idle'}"
        self._closed_by_us = is_idle or not lost_cause
        if not is_idle:
            self._give_notice()

    def _lasted(self, mode: str, window: int, address: str) -> None:
        self._cancel_notice()
        if not self.open:  # the doubtful connection has ended meanwhile
            if self.wanted and self._closed_by_us:  # maybe a moment ago, so the dial of the next one has its time too
                self._give_notice()
            else:
                self._stayed_empty()
        elif self._up is not True:
            self._become(up=True)
            self._observer.notify(RelayUp(self._name, mode, window, address))

    def _set_down(self) -> None:
        self._cancel_notice()
        if self._up is not False:
            self._become(up=False)
            self._named_dial = self._next_dial()
            self._observer.notify(RelayDown(self._name, self._cause, self._retry_after()))

    def _stayed_empty(self) -> None:
        """No connection has been open for a while: the relay is down, or idle if we closed the last and want none."""
        self._cancel_notice()
        if self.wanted or not self._closed_by_us:
            self._set_down()
        elif self._up is not None:
            self._become(up=None)
            self._observer.notify(RelayIdle(self._name))

    def _become(self, *, up: bool | None) -> None:
        self._up, self.down = up, up is False
        self._on_change()

    def _give_notice(self) -> None:
        """Look after `notice_seconds` whether a connection is open, unless a look is due already."""
        if self._notice is None:
            self._notice = self._call_later(self._notice_seconds, self._stayed_empty)

    def _cancel_notice(self) -> None:
        if self._notice is not None:
            self._notice.cancel()
            self._notice = self._doubtful = None
