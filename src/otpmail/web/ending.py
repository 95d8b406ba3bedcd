"""How a connection ends: within a time, whatever its client reads or sends, and with its last answer if possible."""

import asyncio
from abc import abstractmethod
from typing import NamedTuple

from otpmail.web.tls import Guest


class Times(NamedTuple):
    """How long a connection may take, in seconds."""

    head: float = 10.0
    """For a head to come."""
    keep: float = 75.0
    """From an answer to the next request; proxies give up their connections after 60 s."""
    unread: float = 30.0
    """For a client to take any of an answer that waits for it."""
    linger: float = 2.0
    """For a client to send the rest of what is not read, which would else cut the answer off."""
    close: float = 5.0
    """For a client to take the rest, once all is sent."""


TIMES = Times()

STALLED_SECONDS = 1.0
"""The time after which a client that takes none of its answer gives way to others."""


class EndingConnection(Guest):
    """The ends of a connection. It has one timer, which looks at the times now and then."""

    def __init__(self, loop: asyncio.AbstractEventLoop, times: Times) -> None:
        self._loop, self._times = loop, times
        self._is_ending = self._is_closing = False  # it closes after the client's last octets, or is closing
        self._unread: tuple[float, int] | None = None  # since when it has had so many octets that the client has not
        self._timer: asyncio.TimerHandle | None = None

    @abstractmethod
    def _look(self) -> None:
        """Look whether something is overdue."""

    def _end(self, *, lingers: bool) -> None:
        """Close once all is sent, and if it lingers, drop first what the client still sends."""
        if self._is_ending:
            return
        if not lingers or self.transport.is_closing():
            self._close()
            return
        self._is_ending = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self._look_in(self._times.linger)

    def _close(self) -> None:
        self._is_ending = self._is_closing = True
        self.transport.close()
        self._look_in(self._times.close)

    def _looks_at_end(self) -> bool:
        """Whether it is ending; it goes on with that where its time has come."""
        if self._is_closing or self._unread_seconds() >= self._times.unread:
            self.transport.abort()
        elif self._is_ending or self.transport.is_closing():
            self._close()
        else:
            return False
        return True

    def _look_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._look)

    def _unread_seconds(self) -> float:
        """Return for how long the client has taken none of what waits for it."""
        now, octets = self._loop.time(), self.transport.get_write_buffer_size()
        if not octets or self._unread is None or self._unread[1] != octets:
            self._unread = (now, octets)
        return now - self._unread[0]
