"""One request over HTTP/1.1, its body as it comes, and the way to answer it."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Protocol

from otpmail.errors import MemoryFull
from otpmail.limits.memory import Memory
from otpmail.probes import status_text
from otpmail.web.answers import BODILESS, PLAIN_FIELDS, STATUS_LINES, Field, Fields, lines_of
from otpmail.web.ending import Pace
from otpmail.web.incoming import AHEAD, FULL, SMALL, Incoming, octets_of_waiting

Headers = Mapping[bytes, bytes]


class Transport(Protocol):
    """The part of a connection (`web.connection`) that an exchange uses."""

    peer: str
    is_for_probes: bool
    is_writable: bool
    running: asyncio.Task[None] | None
    memory: Memory

    @property
    def certificate(self) -> bytes | None:
        """The certificate that the client has shown, as DER; None without one."""

    @property
    def date(self) -> bytes:
        """The field of an answer with the present date."""

    def write(self, octets: bytes) -> None:
        """Send octets, without a wait."""

    async def drain(self) -> None:
        """Wait until the client has read what was sent."""

    def close(self) -> None:
        """Close once all is sent."""

    def pause_reading(self) -> None:
        """Read no more for now."""

    def resume_reading(self) -> None:
        """Read on."""


class Exchange:
    """A request and its answer. Fields of one name are one, joined by commas (RFC 9110, 5.3).

    With `keep_alive` another request may follow on the connection. `is_whole` says whether the whole body has come.
    """

    __slots__ = (
        "_body",
        "_incoming",
        "_is_chunked",
        "_is_dropping",
        "_waiter",
        "_wants_continue",
        "connection",
        "has_begun",
        "has_ended",
        "headers",
        "is_whole",
        "keep_alive",
        "method",
        "path",
        "query",
        "waits_since",
    )

    def __init__(
        self,
        connection: Transport,
        method: str,
        path: str,
        query: bytes,
        headers: Headers,
        *,
        is_old: bool,
        keep_alive: bool,
    ) -> None:
        self.connection = connection
        self.method, self.path, self.query, self.headers = method, path, query, headers
        self.keep_alive = keep_alive
        self.is_whole = self.has_begun = self.has_ended = False
        self.waits_since: float | None = None
        """Since when its call waits for the next mail of its client, and for nothing else; None where it does not."""
        self._is_chunked = not is_old
        self._wants_continue = not is_old and headers.get(b"expect", b"").lower() == b"100-continue"
        self._body: bytes | bytearray = b""  # the part of the body that has come and was not read
        self._incoming: Incoming | None = None
        self._is_dropping = False  # the rest of the body
        self._waiter: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Exchange {self.method} {self.path}>"  # its fields hold a token

    # The connection calls these.

    def add(self, part: bytes) -> None:
        """Take a part of the body.

        Small parts are one array, since each as an object of its own would take many times its octets.
        """
        if self._is_dropping:
            return
        body = self._body
        if not body:
            self._body = part
        elif isinstance(body, bytearray):
            body += part
        else:
            self._body = bytearray(body) + part
        if len(self._body) > SMALL or self._incoming is not None:
            self._weigh()
        if self._waiter is not None:
            self._wake()

    def _weigh(self) -> None:
        """Count the body. Where the memory is full, drop it and what is still to come."""
        octets = len(self._body)
        if self._incoming is None:
            self._incoming = Incoming(self.connection.memory)
        if not self._incoming.fits(octets):
            self.drop()
        elif octets > self._incoming.most:
            self.connection.pause_reading()

    def wait_in_line(self) -> bool:
        """Count the request while it waits for its answer. Returns whether the memory has room for it."""
        octets = sum(len(name) + len(value) for name, value in self.headers.items())
        octets += len(self.path) + len(self.query)
        self._incoming = Incoming(self.connection.memory, octets_of_waiting(octets, len(self.headers)))
        return self._incoming.fits(0)

    def drop(self) -> None:
        """Drop what is here of the body, and what is still to come of it. A read of it raises MemoryFull."""
        self._is_dropping = True
        self._body = b""
        if self._incoming is not None:
            self._incoming.release()

    def give_up(self) -> None:
        """Answer nothing more, and drop the body."""
        self.has_ended = True
        self.drop()

    def complete(self) -> None:
        """Take note that the body is whole."""
        if self._is_dropping:
            return
        self.is_whole = True
        if len(self._body) > AHEAD:
            self.connection.resume_reading()  # a caller that goes is noticed only while the connection is read
        if self._waiter is not None:
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._waiter = None

    # The body, for those that answer.

    async def read(self) -> bytes:
        """Return what has come of the body since the last read, and wait for more where nothing has.

        It is empty at the end alone. Raises MemoryFull where the body did not fit into the memory.
        """
        while not self._body and not self.is_whole:
            await self._wait_for_more()
        return self._take()

    async def read_all(self, most: int) -> bytes:
        """Return the whole body, or more than `most` octets of a longer one. Raises MemoryFull as `read` does."""
        if not self.is_whole:
            if self._incoming is None:
                self._incoming = Incoming(self.connection.memory)
            self._incoming.most = most
            self._incoming.pace = Pace(asyncio.get_running_loop().time(), len(self._body))
        while not self.is_whole and len(self._body) <= most:
            await self._wait_for_more()
        return self._take()

    def seconds_behind(self, now: float) -> float:
        """Return for how long its client has been too slow with a body that a call waits for."""
        if self._waiter is None or self._incoming is None or self._incoming.pace is None:
            return 0.0
        return self._incoming.pace.seconds_behind(now, len(self._body))

    async def _wait_for_more(self) -> None:
        if self._is_dropping:
            raise MemoryFull(FULL)
        self._invite()
        self.connection.resume_reading()
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _invite(self) -> None:
        """Let a client send the body that waits for that (RFC 9110, 10.1.1)."""
        if self._wants_continue:
            self._wants_continue = False
            self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def whole_body(self, most: int) -> bytes | None:
        """Return the body where all of it is here, at most so many octets; None otherwise."""
        body = self._body
        if not self.is_whole or len(body) > most:
            return None
        if isinstance(body, bytes) and self._incoming is None:
            self._body = b""
            return body
        return self._take()

    def _take(self) -> bytes:
        """Return what is here of the body. From now on its call counts it."""
        body, self._body = self._body, b""
        if self._incoming is not None:
            self._incoming.fits(0)
        if len(body) > AHEAD:
            self.connection.resume_reading()
        return body if isinstance(body, bytes) else bytes(body)

    # The answer.

    async def answer(self, status: int, body: bytes, *fields: Field) -> None:
        """Send the whole answer. Later parts of the request's body are dropped."""
        if not self.connection.is_writable:
            await self.connection.drain()
        if self.has_ended:  # refused meanwhile
            return
        length = b"" if status in BODILESS else b"content-length: %d\r\n" % len(body)
        head = self._head(status, fields, length)
        self.has_begun = True
        self._finish(head if self.method == "HEAD" or not length else head + body)

    async def answer_status(self, status: HTTPStatus, why: str = "", *fields: Field) -> None:
        """Answer with a status in words, and close."""
        self.keep_alive = False
        await self.answer(status, status_text(status, why), *PLAIN_FIELDS, *fields)

    async def begin(self, status: int, *fields: Field) -> None:
        """Send the head of an answer whose body is written as it comes, also while that of the request is read.

        Clients of HTTP/1.0 read until the connection ends.
        """
        self._invite()  # behind this head stands its body
        if not self._is_chunked:
            self.keep_alive = False
        self.has_begun = True
        framing = b"transfer-encoding: chunked\r\n" if self._is_chunked else b""
        self.connection.write(self._head(status, fields, framing))

    async def write(self, body: bytes) -> None:
        """Send a part of the body, once the client has read what was sent before."""
        if not self.connection.is_writable:
            await self.connection.drain()
        if body and self.method != "HEAD":
            self.connection.write(b"%x\r\n%b\r\n" % (len(body), body) if self._is_chunked else body)

    async def end(self, body: bytes = b"") -> None:
        """Send the last part of the body."""
        await self.write(body)
        if not self.is_whole:
            self.keep_alive = False
        self._finish(b"0\r\n\r\n" if self._is_chunked and self.method != "HEAD" else b"")

    def _head(self, status: int, fields: Fields, framing: bytes) -> bytes:
        """Return the head of an answer. Raises ValueError for a field that would hold another one."""
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        return b"".join((STATUS_LINES[status], self.connection.date, framing, lines_of(fields), end))

    def _finish(self, octets: bytes) -> None:
        self.has_ended = True
        if self._incoming is not None or not self.is_whole:
            self.drop()
        self.connection.write(octets)
        if not self.keep_alive:
            self.connection.close()
