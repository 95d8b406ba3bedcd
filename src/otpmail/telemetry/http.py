"""A small HTTP/1.1 server in the service's own loop.

h11 parses the requests. Each connection serves one request, without TLS. The size of a header, the number of
connections and the time that one may take are bounded.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from email.utils import formatdate
from http import HTTPStatus
from typing import cast
from urllib.parse import urlsplit

import h11

from otpmail.values import frozen

log = logging.getLogger("otpmail")
MOST_CONNECTIONS = 64
_MAX_HEADER_BYTES = 16_384


@frozen()
class Request:
    """The header of a request. `headers` has their names in lower case; fields of one name are joined by commas."""

    method: str
    path: str
    query: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)  # they may hold a password


@frozen()
class Response:
    """An answer; the server itself adds Date, Content-Length and Connection, and leaves the body out for HEAD."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def status_response(status: HTTPStatus, *headers: tuple[str, str]) -> Response:
    """Return a response whose body is the status in words."""
    body = f"{status.value} {status.phrase}\n".encode()
    return Response(status, body, (("Content-Type", "text/plain; charset=utf-8"), *headers))


class HttpServer:
    """Listens, and calls `answer` for each request; if that raises, the error is logged and the client is sent 500.

    `refresh` is awaited before each answer; without it an answer is made at once.

    `max_connections` bounds the open connections. A new one beyond that replaces the oldest, which is sent 503, so that
    clients with half a request keep no other client out.
    `timeout` bounds the seconds of each. A client without a whole request is then sent 408; any other is aborted.
    """

    def __init__(
        self,
        answer: Callable[[Request], Response],
        *,
        refresh: Callable[[], Awaitable[None]] | None = None,
        max_connections: int = MOST_CONNECTIONS,
        timeout: float = 10.0,
    ) -> None:
        self.answer = answer
        self.refresh = refresh
        self.timeout = timeout
        self._max_connections = max_connections
        self._connections: dict[_Connection, None] = {}  # the oldest first
        self._server: asyncio.Server | None = None

    def __repr__(self) -> str:
        return f"<HttpServer {len(self._connections)} of {self._max_connections} connections>"

    async def start(self, host: str, port: int) -> int:
        """Listen on every address of `host`; returns the port. Raises OSError, or UnicodeError for an invalid name."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and abort what is open."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._connections):
            connection.abort()
        await self._server.wait_closed()

    def add(self, connection: "_Connection") -> None:
        """Count a connection that was opened; the oldest makes room for it where needed."""
        self._connections[connection] = None
        if len(self._connections) > self._max_connections:
            oldest = next(iter(self._connections))
            self.remove(oldest)
            oldest.give_way()

    def remove(self, connection: "_Connection") -> None:
        """Forget a connection that has ended; safe to repeat."""
        self._connections.pop(connection, None)


class _Connection(asyncio.Protocol):
    """One connection, one request: reads the header, answers, and waits for the client to close."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEADER_BYTES)
        self._answered = False
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to count its time."""
        self._transport = cast("asyncio.Transport", transport)
        self._timer = asyncio.get_running_loop().call_later(self._server.timeout, self._time_out)
        self._server.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- the protocol's signature
        """Free its place."""
        self._timer.cancel()
        if self._answering is not None:
            self._answering.cancel()
        self._server.remove(self)

    def data_received(self, data: bytes) -> None:
        """Answer once the header is whole; a body and further requests are read and dropped."""
        if self._answered or self._answering is not None:
            return
        try:
            self._http.receive_data(data)
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._answer(_request(event))
        except (h11.RemoteProtocolError, ValueError) as error:
            self._send(status_response(HTTPStatus(getattr(error, "error_status_hint", HTTPStatus.BAD_REQUEST))))

    def give_way(self) -> None:
        """Make room for another connection."""
        if self._answered:
            self.abort()
        else:
            self._send(status_response(HTTPStatus.SERVICE_UNAVAILABLE))
            self._transport.close()

    def abort(self) -> None:
        """Close at once, whether or not the client has read its response."""
        self._transport.abort()

    def _answer(self, request: Request) -> None:
        if self._server.refresh is None:
            self._send(self._respond(request), with_body=request.method != "HEAD")
        else:
            self._answering = asyncio.create_task(self._answer_refreshed(request, self._server.refresh))

    async def _answer_refreshed(self, request: Request, refresh: Callable[[], Awaitable[None]]) -> None:
        try:
            await refresh()
        except Exception:
            log.exception("nothing new for %s %s", request.method, request.path)
        if not self._answered:  # it has given way to another connection, or its time is over
            self._send(self._respond(request), with_body=request.method != "HEAD")

    def _respond(self, request: Request) -> Response:
        try:
            return self._server.answer(request)
        except Exception:
            log.exception("no answer to %s %s", request.method, request.path)
            return status_response(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _send(self, response: Response, *, with_body: bool = True) -> None:
        """Send the response and end our side; the client closes once it has read everything (RFC 9112, 9.6).

        A close with input unread would reset the connection, and the response could be lost.
        """
        self._answered = True
        if self._transport.is_closing():
            return
        fields = ("Date", formatdate(usegmt=True)), ("Content-Length", str(len(response.body))), ("Connection", "close")
        head = h11.Response(status_code=response.status, headers=[*fields, *response.headers])
        self._transport.write((self._http.send(head) or b"") + (response.body if with_body else b""))
        self._transport.write_eof()

    def _time_out(self) -> None:
        if self._answered:
            self.abort()
        else:
            self._send(status_response(HTTPStatus.REQUEST_TIMEOUT))
            self._transport.close()


def _request(event: h11.Request) -> Request:
    """Raises ValueError for a target that is no URL."""
    url = urlsplit(event.target.decode("ascii"))
    headers: dict[str, str] = {}
    for name, value in event.headers:
        key, text = name.decode("ascii"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return Request(event.method.decode("ascii"), url.path, url.query, headers)
