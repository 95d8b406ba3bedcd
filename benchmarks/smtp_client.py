"""A minimal SMTP client, signed in and then raw bytes, for what a benchmark asks of the relay itself."""

import asyncio
import base64
import ssl

USER = "user"
PASSWORD = "secret"  # noqa: S105  the benchmark relay's, on loopback
CREDENTIALS = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode())

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def sign_in(port: int, ca_file: str) -> Streams:
    """Connect to the relay on this machine under TLS, and sign in."""
    tls = ssl.create_default_context(cafile=ca_file)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, limit=1 << 20)
    await reply(reader)
    await command((reader, writer), b"EHLO client.example")
    await command((reader, writer), b"AUTH PLAIN " + CREDENTIALS)
    return reader, writer


async def command(streams: Streams, line: bytes) -> bytes:
    """Send one command and return its reply."""
    reader, writer = streams
    writer.write(line + b"\r\n")
    return await reply(reader)


async def reply(reader: asyncio.StreamReader) -> bytes:
    """Read one reply, of one line or several. Raises ConnectionError at a 4xx or 5xx, and where the stream ends."""
    text = b""
    while True:
        line = await reader.readline()
        text += line
        if line[:1] not in b"23" or not line:
            raise ConnectionError(f"the relay replied {text!r}")
        if line[3:4] != b"-":
            return text


async def sign_out(streams: Streams) -> None:
    """Send QUIT, and close."""
    _, writer = streams
    await command(streams, b"QUIT")
    writer.close()
    await writer.wait_closed()
