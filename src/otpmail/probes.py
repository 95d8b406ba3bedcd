"""Requests of probes and scrapers, and their answers, as they pass between doors, processes and what answers them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from http import HTTPStatus

from otpmail.values import frozen

METRICS, LIVE, READY = "/metrics", "/livez", "/readyz"
PATHS = frozenset({METRICS, LIVE, READY})
"""Paths that ask nobody who calls. On loopback `web.gate` looks at Host and Origin of a request for metrics."""

PLAIN = "text/plain; charset=utf-8"


@frozen()
class Request:
    """The head of a request. `headers` has their names in lower case; fields of one name are joined by commas."""

    method: str
    path: str
    query: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)  # they may hold a password


@frozen()
class Response:
    """An answer; the door itself adds Date and Content-Length, and leaves the body out for HEAD."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


Probe = Callable[[Request], Awaitable[Response]]
"""Answers requests for PATHS."""


def status_text(status: HTTPStatus, why: str = "") -> bytes:
    """Return a status in words, as the line of an answer in plain text."""
    return f"{status.value} {status.phrase}{f': {why}' * bool(why)}\n".encode()
