"""The bytes of one connection to the relay, and their end."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

HANDSHAKE_SECONDS = 10.0
MAX_LINE = 1 << 20
READ_AHEAD = 1 << 16  # past this, input waits in the kernel until the session asks for it, as with a busy relay


class Gone(Exception):
    """The connection is over."""


class Wire(asyncio.Protocol):
    """One connection's bytes: buffered input to wait for, delayed output in order, and TLS.

    Not asyncio's streams, because those cannot hold back the ClientHello that may arrive before `start_tls`.
    """

    def __init__(self, connection: socket.socket, *, sent: Callable[[], None], lost: Callable[[Wire], None]) -> None:
        self._connection = connection
        self._sent = sent
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._input = asyncio.Event()
        self._late: deque[bytes] = deque()
        self._all_sent = asyncio.Event()
        self._ended = False  # nothing more will come
        self._closed = False
        self._gone = False  # the transport was aborted or lost, and may not be used again
        self._paused = False
        self._over_tls = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to send to it."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Keep what came, up to a point."""
        if self._closed:
            return
        self._buffer += data
        if len(self._buffer) > READ_AHEAD and not self._paused:
            self.hold_input()
        self._input.set()

    def eof_received(self) -> bool:
        """Note that no more will come."""
        self._ended = True
        self._input.set()
        return not self._over_tls  # half-closed is fine on TCP: the replies to what came before are still due

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Wake the session if it waits for input, and report the loss."""
        self._gone = True
        self._end()
        self._lost(self)

    @property
    def transport(self) -> asyncio.Transport:
        """The transport in use. Raises Gone before there is one, and once it is closing."""
        if self._transport is None or self._transport.is_closing():
            raise Gone
        return self._transport

    async def open(self, context: ssl.SSLContext | None) -> None:
        """Begin to read and write, over TLS if there is a context."""
        seconds = None if context is None else HANDSHAKE_SECONDS
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self, self._connection, ssl=context, ssl_handshake_timeout=seconds
            )
        except BaseException:
            self.connection_lost(None)  # a protocol whose handshake fails was never connected, so asyncio says nothing
            raise
        self._over_tls = context is not None

    @property
    def client_name(self) -> str:
        """The name in the certificate that the client has shown, empty without one."""
        certificate = self.transport.get_extra_info("peercert") or {}
        return next((name for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS"), "")

    @property
    def has_input(self) -> bool:
        """Whether something has come that was not read."""
        return bool(self._buffer)

    @property
    def owes_replies(self) -> bool:
        """Whether something that was sent has not left."""
        return bool(self._late)

    async def read_line(self) -> bytes:
        """Return a line without its CRLF."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > MAX_LINE:
                self.send(b"500 5.5.2 line too long\r\n")
                raise Gone
            await self._more()
        return self._take(end + 2)[:-2]

    async def read_exactly(self, count: int) -> bytes:
        """Return so many octets."""
        while len(self._buffer) < count:
            await self._more()
        return self._take(count)

    async def wait_ended(self) -> None:
        """Return once the client has left."""
        while not self._ended:
            self._input.clear()
            await self._input.wait()

    def send(self, data: bytes, delay: float = 0.0) -> None:
        """Send after `delay` seconds, yet never before what was sent earlier."""
        if not delay and not self._late:
            self._write(data)
            return
        self._late.append(data)
        self._all_sent.clear()
        asyncio.get_running_loop().call_later(delay, self._send_late)

    async def flush(self) -> None:
        """Return once all that was sent has left."""
        while self._late:
            await self._all_sent.wait()

    def hold_input(self) -> None:
        """Leave what comes next in the kernel, for `start_tls` to find."""
        self._paused = True
        self.transport.pause_reading()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands, with `hold_input` called before the client could have begun to."""
        await self.flush()
        self._buffer.clear()  # RFC 3207, 4.2: nothing said in the clear may count
        try:
            transport = await asyncio.get_running_loop().start_tls(
                self.transport, self, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except BaseException:
            self.abort()
            self.connection_lost(None)  # as above
            raise
        if transport is None:
            raise Gone
        self._transport = transport
        self._over_tls = True
        self._paused = False

    async def part(self) -> None:
        """Half-close, and read on until the client has closed; over TLS, which has no half-close, do nothing.

        A close with input unread resets the connection, and the last reply may be lost.
        """
        if self._over_tls or self._transport is None or self._transport.is_closing():
            return
        self._closed = True  # from now on input is read and dropped
        if self._paused:
            self._transport.resume_reading()
        self._transport.write_eof()
        await self.wait_ended()

    def close(self) -> None:
        """Close once all that was sent, and is not late, has left; may be repeated.

        A TLS transport that is closed twice drops its protocol, and most of its methods then raise.
        """
        self._end()
        if self._transport is None:
            self._connection.close()
            self._lost(self)
        elif not self._transport.is_closing():
            self._transport.close()

    def abort(self) -> None:
        """Close now, and drop what has not left; may follow `close`, and may be repeated."""
        if self._transport is not None and not self._gone:
            self._gone = True
            self._transport.abort()
        self.close()

    def _end(self) -> None:
        self._ended = True
        self._closed = True
        self._buffer.clear()
        self._input.set()
        self._late.clear()
        self._all_sent.set()

    async def _more(self) -> None:
        if self._ended:
            raise Gone
        self._input.clear()
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        await self._input.wait()

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _send_late(self) -> None:
        if self._late:
            self._write(self._late.popleft())
        if not self._late:
            self._all_sent.set()
            self._sent()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
