"""Calls of the service over HTTP/1.1, as any program makes them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service import Service

JSON = {"content-type": "application/json"}
PROTO = {"content-type": "application/proto"}
SEND_CODE = "/otpmail.v1.OtpService/SendCode"
VALIDATE_CODE = "/otpmail.v1.OtpService/ValidateCode"
SEND_MAIL = "/otpmail.v1.MailService/SendMail"
GET_MAIL = "/otpmail.v1.MailService/GetMail"
_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the service; fields by their names in lower case."""

    status: int
    fields: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


def url_of(service: Service) -> str:
    """Return the start of the URLs of a service with HTTP_PORT."""
    (line,) = service.logged("metrics")
    return str(line["url"]).removesuffix("/metrics")


async def request(
    service: Service | str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "",
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Make one request on a connection of its own: by POST with a body, else by GET, unless `method` says another."""
    url = urlsplit(service if isinstance(service, str) else url_of(service))

    def ask() -> Answer:
        assert url.hostname is not None
        if url.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                url.hostname, url.port, timeout=_SECONDS, context=tls
            )
        else:
            connection = http.client.HTTPConnection(url.hostname, url.port, timeout=_SECONDS)
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


async def call(service: Service | str, path: str, message: object, **headers: str) -> Answer:
    """Call a method with a message in JSON."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return await request(service, path, json.dumps(message).encode(), {**JSON, **fields})


async def converse(service: Service, octets: bytes, *, seconds: float = _SECONDS) -> bytes:
    """Send octets on a connection, and return all that comes until the service closes it."""
    url = urlsplit(url_of(service))
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        writer.write(octets)
        parts: list[bytes] = []
        async with asyncio.timeout(seconds):
            with contextlib.suppress(ConnectionError):  # a close with input unread resets the connection
                while part := await reader.read(1 << 16):
                    parts.append(part)
        return b"".join(parts)
    finally:
        writer.close()
