"""Messages between a supervisor and one of its processes, over a pair of connected Unix sockets without a name.

A message is an object of JSON behind its length. The supervisor's first one is a pickle: what the process is to be.
"""

import asyncio
import json
import pickle
import socket
import struct
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Self

from otpmail.probes import Request, Response
from otpmail.settings import Settings
from otpmail.settings.listen import ListenAddress
from otpmail.settings.portions import Portion
from otpmail.values import frozen

Message = dict[str, Any]

_LENGTH = struct.Struct("!I")
_FIELDS = ("accept", "accept-encoding")  # an answer to a probe depends on them


@frozen()
class Assignment:
    """The task of a process: its portion, the settings of the whole service, and the addresses that are held.

    `http` are the descriptors that it has of the sockets of HTTP_PORT.
    """

    portion: Portion
    settings: Settings
    hosts: tuple[ListenAddress, ...]
    port: int
    http: tuple[int, ...]


def pack_request(request: Request) -> Message:
    """Return the message for a request."""
    kept = {name: request.headers[name] for name in _FIELDS if name in request.headers}
    return {"method": request.method, "path": request.path, "query": request.query, "headers": kept}


def pack_response(response: Response) -> Message:
    """Return the message for a response."""
    body = b64encode(response.body).decode()
    return {"status": response.status, "body": body, "headers": response.headers}


def unpack_response(sent: Message) -> Response:
    """Return a response that was sent."""
    headers = tuple((name, value) for name, value in sent["headers"])
    return Response(sent["status"], b64decode(sent["body"]), headers)


class Channel:
    """One end of the pair. Use it in one loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Self:
        """Make a channel that owns this end."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    def __repr__(self) -> str:
        return f"<Channel {'closing' if self._writer.is_closing() else 'open'}>"

    def send(self, message: Mapping[str, object]) -> None:
        """Send a message without waiting for it to leave; nothing happens where the other end has gone."""
        self._send(json.dumps(message).encode())

    async def receive(self) -> Message | None:
        """Return the next message; None once the other end has gone."""
        octets = await self._receive()
        return None if octets is None else json.loads(octets)

    def assign(self, assignment: Assignment) -> None:
        """Send the first message of a supervisor."""
        self._send(pickle.dumps(assignment))

    async def receive_assignment(self) -> Assignment | None:
        """Return the first message of a supervisor; None where it has gone."""
        octets = await self._receive()
        if octets is None:
            return None
        # Only the supervisor that started this process has the other end. The settings hold secrets, which neither
        # arguments nor the environment may show.
        assignment: Assignment = pickle.loads(octets)  # noqa: S301  as said above
        return assignment

    def close(self) -> None:
        """Close this end."""
        self._writer.close()

    def _send(self, octets: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(_LENGTH.pack(len(octets)) + octets)

    async def _receive(self) -> bytes | None:
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
