"""One request over HTTP and the way to answer it."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple, Self

from otpmail.web.connection import SCOPE, Connection

Headers = Mapping[bytes, bytes]
Field = tuple[bytes, bytes]
Fields = tuple[Field, ...]
Event = dict[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

CLOSE: Field = (b"connection", b"close")
"""For an answer before the body was read: no other request can follow it on the connection."""


class Exchange(NamedTuple):
    """A request and its answer. Fields of one name are one, joined by commas (RFC 9110, 5.3)."""

    scope: Scope
    headers: Headers
    receive: Receive
    send: Send

    def __repr__(self) -> str:
        return "<Exchange>"  # its fields hold a token

    @classmethod
    def of(cls, scope: Scope, receive: Receive, send: Send) -> Self:
        """Return what ASGI hands over as an exchange."""
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            headers[name] = headers[name] + b", " + value if name in headers else value
        return cls(scope, headers, receive, send)

    @property
    def connection(self) -> Connection:
        """The connection of the request."""
        connection: Connection = self.scope[SCOPE]
        return connection

    async def answer(self, status: int, body: bytes, *fields: Field) -> None:
        """Send the whole answer."""
        head = [(b"content-length", b"%d" % len(body)), *fields]
        await self.send({"type": "http.response.start", "status": status, "headers": head})
        await self.send({"type": "http.response.body", "body": body})

    async def say(self, status: HTTPStatus, why: str = "", *fields: Field) -> None:
        """Answer with a status in words, and close."""
        text = f"{status.value} {status.phrase}{f': {why}' * bool(why)}\n"
        plain = ((b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff"))
        await self.answer(status, text.encode(), *plain, CLOSE, *fields)
