"""What is remembered of each caller. Where all together take too much, the caller with most of it forgets first."""

from sys import maxsize

from otpmail.store.base import MOST_REQUESTS, REQUEST_SECONDS
from otpmail.store.memory.remembered import Remembered


class Share:
    """The settled mails of one caller, their contents where they may be retried, and its request ids."""

    __slots__ = ("contents", "requests", "settled")

    def __init__(self, *, seconds: float, most: int, most_octets: int) -> None:
        self.settled = Remembered(seconds=seconds, most=most, most_octets=most_octets)
        self.contents = Remembered(seconds=seconds, most=most, most_octets=most_octets)
        self.requests = Remembered(seconds=REQUEST_SECONDS, most=MOST_REQUESTS, most_octets=most_octets)

    def __repr__(self) -> str:
        return f"<Share {len(self.settled)} settled, {len(self.requests)} request ids>"

    @property
    def octets(self) -> int:
        """What it takes in memory."""
        return self.settled.octets + self.contents.octets + self.requests.octets

    def forget_oldest(self) -> bool:
        """Forget the oldest contents, settled mails where none is left, then request ids; False without any.

        A request id is kept longest, since without it a repeated request is sent again.
        """
        return self.contents.forget_oldest() or self.settled.forget_oldest() or self.requests.forget_oldest()


class Shares(dict[str, Share]):
    """The share of each caller by its name, made when it is first asked for.

    Each remembers `most` settled mails and MOST_REQUESTS request ids, and each kind takes `most_octets` at most.
    """

    def __init__(self, *, seconds: float, most: int, most_octets: int = maxsize) -> None:
        super().__init__()
        self._seconds = seconds
        self._most = most
        self._most_octets = most_octets

    def __missing__(self, caller: str) -> Share:
        """Make the share of a caller that had none."""
        self[caller] = share = Share(seconds=self._seconds, most=self._most, most_octets=self._most_octets)
        for each in self.values():
            for kind in (each.settled, each.contents, each.requests):
                kind.divide(len(self))
        return share

    @property
    def octets(self) -> int:
        """What all of them take in memory."""
        return sum(share.octets for share in self.values())

    def forget_oldest(self) -> bool:
        """Forget something of the caller with most to remember; False where nothing is left."""
        largest = max(self.values(), key=lambda share: share.octets, default=None)
        return largest is not None and largest.forget_oldest()
