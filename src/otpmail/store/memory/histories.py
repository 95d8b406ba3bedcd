"""Settled mails and request ids of each caller. Where all take too much, the caller with most forgets first."""

from collections.abc import Callable
from functools import partial

from otpmail.store.memory.remembered import Remembered
from otpmail.store.retention import Retention

_FEW = 64


class History:
    """The settled mails of one caller, their contents where they may be retried, and its request ids."""

    __slots__ = ("contents", "requests", "settled")

    def __init__(
        self,
        retention: Retention,
        *,
        parts: Callable[[], int] = lambda: 1,
    ) -> None:
        seconds, most, octets = retention.seconds, retention.count, retention.octets
        self.settled = Remembered(seconds=seconds, most=most, most_octets=octets, parts=parts)
        self.contents = Remembered(seconds=seconds, most=most, most_octets=octets, parts=parts)
        seconds, most = retention.request_seconds, retention.request_count
        self.requests = Remembered(seconds=seconds, most=most, most_octets=octets, parts=parts)

    def __repr__(self) -> str:
        return f"<History {len(self.settled)} settled, {len(self.requests)} request ids>"

    @property
    def octets(self) -> int:
        """The memory that it takes."""
        return self.settled.octets + self.contents.octets + self.requests.octets

    def has_ended(self, now: float) -> bool:
        """Whether nothing in it is remembered any more."""
        return all(kind.has_ended(now) for kind in (self.settled, self.contents, self.requests))

    def forget_oldest(self) -> bool:
        """Forget the oldest contents, settled mails where none is left, then request ids; False without any.

        A request id is kept longest, since without it a repeated request is sent again.
        """
        return self.contents.forget_oldest() or self.settled.forget_oldest() or self.requests.forget_oldest()


class Histories(dict[str, History]):
    """The history of each caller by its name, made when it is first asked for.

    Each remembers what `retention` says, and each kind in it takes `retention.octets` at most. A history in which
    nothing is remembered is dropped in time: certificates may name ever new callers.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        retention: Retention,
    ) -> None:
        super().__init__()
        self._now = clock
        self._drop_at = _FEW
        self._history = partial(History, retention, parts=self.__len__)

    def __missing__(self, caller: str) -> History:
        """Make the history of a caller that had none."""
        if len(self) >= self._drop_at:
            self._drop_ended()
        self[caller] = history = self._history()
        return history

    @property
    def octets(self) -> int:
        """The memory that all of them take."""
        return sum(history.octets for history in list(self.values()))  # a thread asks too, while callers come

    def forget_oldest(self) -> bool:
        """Forget something of the caller with most to remember; False where nothing is left."""
        largest = max(self.values(), key=lambda history: history.octets, default=None)
        return largest is not None and largest.forget_oldest()

    def _drop_ended(self) -> None:
        now = self._now()
        for caller in [caller for caller, history in self.items() if history.has_ended(now)]:
            del self[caller]
        self._drop_at = max(_FEW, 2 * len(self))  # so that ever more histories are not looked at ever more often
