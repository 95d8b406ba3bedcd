"""How many streams of health and reflection callers may have open. They last long, and take no place in the queue.

Each takes as much memory as any call (`limits.memory`), so that thousands would leave none for mails.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from otpmail.errors import LimitExceeded
from otpmail.limits.memory import CALL_OCTETS

_PART = 16  # of the budget
_MOST_OF_CONNECTION = 32  # a client watches a service or two, and a proxy has a connection for many clients
_UNIX = "unix:"  # the peer of every connection of a Unix socket


class TooManyStreams(LimitExceeded):
    """A connection, or all of them together, have as many streams of health and reflection as they may."""

    reason = "TOO_MANY_STREAMS"

    def __init__(self, description: str, setting: str) -> None:
        super().__init__("streams", description, retry_after=10.0, setting=setting)


class StreamLimit:
    """The streams that are open, by connection. Those of a budget of `octets` take a sixteenth of it at most."""

    def __init__(self, octets: int, *, of_connection: int = _MOST_OF_CONNECTION) -> None:
        self._in_all = max(1, octets // _PART // CALL_OCTETS)
        self._of_connection = of_connection
        self._open: dict[str, int] = {}
        self._count = 0

    def __repr__(self) -> str:
        return f"<StreamLimit {self._count} of {self._in_all} streams, {len(self._open)} connections>"

    @contextmanager
    def open(self, peer: str) -> Iterator[None]:
        """Count a stream of the connection `peer` while it is open. Raises TooManyStreams."""
        if self._count >= self._in_all:
            text = f"{self._in_all} streams of health and reflection are open, as many as may be"
            raise TooManyStreams(text, "MEMORY_MAX_MB")
        mine = self._open.get(peer, 0)
        if mine >= self._of_connection and not peer.startswith(_UNIX):
            text = f"this connection has {mine} streams of health and reflection, as many as it may"
            raise TooManyStreams(text, "connection_streams")
        self._open[peer] = mine + 1
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            self._open[peer] -= 1
            if not self._open[peer]:
                del self._open[peer]
