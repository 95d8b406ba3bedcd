"""HTTP/2 by hand (RFC 9113), for what no gRPC library would send: half messages, resets, nothing at all."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import defaultdict
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, _RESET, SETTINGS, PING, _GOAWAY, _WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, END_HEADERS = 1, 1, 4
_INITIAL_WINDOW_SIZE = 4  # a setting
_INITIAL_WINDOW = 65_535
_MAX_FRAME = 16_384
_CANCEL = 8
ENHANCE_YOUR_CALM = 11


class Connection:
    """One connection to the service at `host:port`. It answers settings and pings, and keeps to flow control.

    The server may send `window` octets of each stream. `begun` holds the streams of which it has sent headers, `ended`
    those that it has ended or reset; `one_ended` is set with the first. `closed` is set once the connection is over.
    """

    def __init__(self, address: str, *, window: int = _INITIAL_WINDOW) -> None:
        self.address = address
        self.begun: set[int] = set()
        self.ended: set[int] = set()
        self.closed = asyncio.Event()
        self.one_ended = asyncio.Event()
        self._next = 1
        self._settings = struct.pack("!HI", _INITIAL_WINDOW_SIZE, window)
        self._acknowledged = 0  # pings
        self._refusal: int | None = None  # the error of a GOAWAY
        self._window = _INITIAL_WINDOW
        self._initial_window = _INITIAL_WINDOW
        self._windows: defaultdict[int, int] = defaultdict(int)  # octets that the server has added to each stream's
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Connect and send the preface."""
        host, _, port = self.address.rpartition(":")
        self._reader, self._writer = await asyncio.open_connection(host, int(port))
        self._writer.write(PREFACE + frame(SETTINGS, 0, 0, self._settings))
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close at once."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._writer.transport.abort()

    def call(self, path: str) -> int:
        """Begin a gRPC call of that path; returns its stream."""
        stream, self._next = self._next, self._next + 2
        fields = (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", self.address)
        more = ("content-type", "application/grpc"), ("te", "trailers")
        block = b"".join(literal(name, value) for name, value in (*fields, *more))
        self._writer.write(frame(HEADERS, END_HEADERS, stream, block))
        return stream

    def reset(self, stream: int) -> None:
        """Cancel a call."""
        self._writer.write(frame(_RESET, 0, stream, struct.pack("!I", _CANCEL)))

    async def send(self, stream: int, octets: bytes, *, end: bool = False) -> bool:
        """Send octets of a call's body as the server allows; False where it has ended the call or the connection."""
        at = 0
        while at < len(octets):
            allowed = min(self._window, self._initial_window + self._windows[stream], _MAX_FRAME, len(octets) - at)
            if stream in self.ended or self.closed.is_set():
                return False
            if allowed <= 0:
                await self._change()
                continue
            self._writer.write(frame(DATA, 0, stream, octets[at : at + allowed]))
            self._window -= allowed
            self._windows[stream] -= allowed
            at += allowed
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()
        if end:
            self._writer.write(frame(DATA, _END_STREAM, stream))
        return True

    async def wait_for_headers(self, stream: int) -> None:
        """Wait until the server has begun to answer a call. Raises ConnectionError where it closes the connection."""
        while stream not in self.begun:
            await self._change_of_open()

    async def ping(self) -> int | None:
        """Ping once; return None where that is acknowledged, and the error code of a GOAWAY where that is the answer.

        Raises ConnectionError where the server closes the connection without a word.
        """
        acknowledged = self._acknowledged
        self._writer.write(frame(PING, 0, 0, bytes(8)))
        while self._acknowledged == acknowledged and self._refusal is None:
            await self._change_of_open()
        return self._refusal

    async def flush(self) -> None:
        """Wait until the socket has taken what was written."""
        await self._writer.drain()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _change_of_open(self) -> None:
        if self.closed.is_set():
            raise ConnectionResetError
        await self._change()

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                kind, flags = head[3], head[4]
                stream = int.from_bytes(head[5:]) & 0x7FFF_FFFF
                payload = await self._reader.readexactly(int.from_bytes(head[:3]))
                if stream:
                    self._received_on_stream(kind, flags, stream, payload)
                else:
                    self._received_on_connection(kind, flags, payload)
                self._changed.set()
        except (EOFError, ConnectionError):
            pass
        finally:
            self.closed.set()
            self._changed.set()

    def _received_on_stream(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _WINDOW_UPDATE:
            self._windows[stream] += int.from_bytes(payload) & 0x7FFF_FFFF
        if kind == HEADERS:
            self.begun.add(stream)
        if kind == _RESET or (kind in {DATA, HEADERS} and flags & _END_STREAM):
            self.ended.add(stream)
            self.one_ended.set()

    def _received_on_connection(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == _WINDOW_UPDATE:
            self._window += int.from_bytes(payload) & 0x7FFF_FFFF
        elif kind == _GOAWAY:
            self._refusal = int.from_bytes(payload[4:8])
        elif kind == PING and flags & _ACK:
            self._acknowledged += 1
        elif kind == PING:
            self._writer.write(frame(PING, _ACK, 0, payload))
        elif kind == SETTINGS and not flags & _ACK:
            settings = dict(struct.iter_unpack("!HI", payload))
            self._initial_window = settings.get(_INITIAL_WINDOW_SIZE, self._initial_window)
            self._writer.write(frame(SETTINGS, _ACK, 0))


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def message(length: int, begun: bytes = b"") -> bytes:
    """Return the beginning of a gRPC message that says it has `length` octets."""
    return struct.pack("!BI", 0, length) + begun


def literal(name: str, value: str) -> bytes:
    """Return a header field that is not indexed (RFC 7541, 6.2.2), whose parts are shorter than 127 octets."""
    return b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
