"""A connection that speaks HTTP/2 by hand (RFC 9113), for what gRPC's own clients never do."""

from __future__ import annotations

import asyncio
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ENHANCE_YOUR_CALM = 0xB

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_INITIAL_WINDOW_SIZE = 4


class Frame(NamedTuple):
    """A frame as it was received."""

    kind: int
    stream: int
    payload: bytes


class Http2:
    """One connection. `open` it; frames of kinds that nobody waits for are dropped."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    @asynccontextmanager
    async def open(cls, port: int, *, window: int = 65_535) -> AsyncIterator[Http2]:
        """Connect to the port of 127.0.0.1, and exchange settings; each stream may be sent `window` octets."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        connection = cls(reader, writer)
        try:
            writer.write(_PREFACE)
            connection.send(SETTINGS, payload=struct.pack(">HI", _INITIAL_WINDOW_SIZE, window))
            await connection.receive(SETTINGS)
            connection.send(SETTINGS, flags=_ACK)
            yield connection
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def send(self, kind: int, *, flags: int = 0, stream: int = 0, payload: bytes = b"") -> None:
        """Send one frame."""
        self._writer.write(struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload)

    async def receive(self, *kinds: int) -> Frame:
        """Return the next frame of one of these kinds."""
        while True:
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] in kinds:
                return Frame(head[3], int.from_bytes(head[5:], "big"), payload)

    async def ping(self) -> int | None:
        """Ping once; returns the error code of a GOAWAY where that is the answer, None where it is acknowledged."""
        self.send(PING, payload=bytes(8))
        frame = await self.receive(PING, GOAWAY)
        return None if frame.kind == PING else struct.unpack_from(">I", frame.payload, 4)[0]

    def call(self, path: str, message: bytes, *, stream: int = 1) -> None:
        """Begin a call of gRPC with one message, after which this side has ended the stream."""
        headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "test", "te": "trailers"}
        headers["content-type"] = "application/grpc"
        block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers.items())
        self.send(HEADERS, flags=_END_HEADERS, stream=stream, payload=block)
        self.send(DATA, flags=_END_STREAM, stream=stream, payload=b"\x00" + struct.pack(">I", len(message)) + message)


def _text(text: str) -> bytes:
    """Return a string literal of HPACK, without Huffman's code (RFC 7541, 5.2). It has fewer than 127 octets."""
    return bytes((len(text),)) + text.encode()
