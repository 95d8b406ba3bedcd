"""How a connection ends: within a time, whatever its client reads or sends, and with its last answer if possible."""

import asyncio
import struct
import termios
from abc import abstractmethod
from fcntl import ioctl
from typing import NamedTuple

from otpmail.web.tls import Guest


class Times(NamedTuple):
    """How long a connection may take, in seconds."""

    head: float = 10.0
    """For a head to come."""
    keep: float = 75.0
    """From an answer to the next request; proxies give up their connections after 60 s."""
    upload: float = 20.0
    """For which a client may be behind LEAST_RATE with the body of a request."""
    unread: float = 30.0
    """For which it may be behind LEAST_RATE with an answer that waits for it."""
    linger: float = 2.0
    """For a client to send the rest of what is not read, which would else cut the answer off."""
    close: float = 5.0
    """For a client to take the rest, once all is sent."""


TIMES = Times()

STALLED_SECONDS = 1.0
"""The time after which a client that is behind LEAST_RATE with its answer gives way to others."""

_OCTETS_OF_WRITE = 64 << 10

LEAST_RATE = 1024
"""Octets a second, slower than any line of today: with less, an octet now and then would be enough to stay."""


_INT = struct.Struct("=i")


class Pace:
    """For how long a client is behind LEAST_RATE. Being faster counts for no later time.

    `octets` are those that it has sent, or those that it has still to take.
    """

    __slots__ = ("_since", "octets")

    def __init__(self, now: float, octets: int) -> None:
        self._since = now
        self.octets = octets

    def __repr__(self) -> str:
        return f"<Pace {self.octets} octets>"

    def seconds_behind(self, now: float, octets: int) -> float:
        """Return for how long it is behind, by the octets of now."""
        self._since = min(now, self._since + abs(octets - self.octets) / LEAST_RATE)
        self.octets = octets
        return now - self._since


class EndingConnection(Guest):
    """The ends of a connection. It has one timer, which looks at the times now and then."""

    def __init__(self, loop: asyncio.AbstractEventLoop, times: Times) -> None:
        self._loop, self._times = loop, times
        self._is_ending = self._is_closing = False  # it closes after the client's last octets, or is closing
        self._unread: Pace | None = None  # with what waits for the client
        self._timer: asyncio.TimerHandle | None = None
        self.is_writable = True
        self._drained: asyncio.Future[None] | None = None

    @abstractmethod
    def _look(self) -> None:
        """Look whether something is overdue."""

    def write(self, octets: bytes) -> None:
        """Send octets, without a wait.

        Large ones in parts: of one write under TLS the transport doesn't tell how much the client has not taken.
        """
        if self._is_ending:
            return
        if len(octets) <= _OCTETS_OF_WRITE:
            self.transport.write(octets)
            return
        for start in range(0, len(octets), _OCTETS_OF_WRITE):
            self.transport.write(memoryview(octets)[start : start + _OCTETS_OF_WRITE])
        self._unread_seconds()  # from now on

    def pause_writing(self) -> None:
        """Let answers wait: the client does not read them."""
        self.is_writable = False
        self._unread_seconds()

    def resume_writing(self) -> None:
        """Let answers go on."""
        self.is_writable = True
        self._unread_seconds()  # once the answer has filled the buffer again, nobody sees that the client took some
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    async def drain(self) -> None:
        """Wait until the client has read what was sent."""
        while not self.is_writable:
            if self._drained is None or self._drained.done():
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)  # more than one may wait

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
        """Return for how long the client has been too slow with what waits for it."""
        now, octets = self._loop.time(), self.transport.get_write_buffer_size()
        if octets:
            octets += _in_kernel(self.transport)
        if not octets or self._unread is None or octets > self._unread.octets:
            self._unread = Pace(now, octets)
        return self._unread.seconds_behind(now, octets)


def _in_kernel(transport: asyncio.BaseTransport) -> int:
    """Return the octets that the kernel has and the client's machine has not acknowledged.

    The kernel takes more from a transport only once a third of its buffer is free, which may be a megabyte.
    """
    connection = transport.get_extra_info("socket")
    if connection is None:
        return 0
    try:
        (octets,) = _INT.unpack(ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(_INT.size)))
    except (OSError, ValueError):  # closed meanwhile, or a system that does not tell it
        return 0
    return int(octets)
