"""Answers /metrics, /livez and /readyz, whatever serves them.

The metrics are those of a registry, in Prometheus' text format or in OpenMetrics. The other two are for probes that
speak no gRPC, such as those of balancers.
"""

import gzip
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from http import HTTPStatus
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted

from otpmail.values import frozen

_METRICS, _LIVE, _READY = "/metrics", "/livez", "/readyz"
PATHS = frozenset({_METRICS, _LIVE, _READY})
"""Paths that ask nobody who calls. On loopback `web.gate` looks at Host and Origin of a request for metrics."""

log = logging.getLogger("otpmail")


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


class Exposition:
    """Answers GET and HEAD: /metrics with what the registry collects at that moment, once `refresh` was awaited.

    /readyz is 200 while `problem` returns nothing. Else it is 503 with that text: why callers should not come here.
    /livez is 200 whenever it is answered at all, unless `hang` names what has stopped.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        problem: Callable[[], str] = str,
        *,
        hang: Callable[[], str] = str,
        refresh: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._registry = registry
        self._problem = problem
        self._hang = hang
        self._refresh = refresh

    def __repr__(self) -> str:
        return f"<Exposition problem={self._problem()!r}>"

    async def answer(self, request: Request) -> Response:
        """Answer a request for one of PATHS, or with 404."""
        if request.path not in PATHS:
            return _status(HTTPStatus.NOT_FOUND)
        if request.method not in {"GET", "HEAD"}:
            return _status(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET, HEAD"))
        if request.path == _LIVE:
            return _probed("live", self._hang())
        if request.path == _READY:
            return _probed("ready", self._problem())
        return await self._metrics(request)

    async def _metrics(self, request: Request) -> Response:
        if self._refresh is not None:
            try:
                await self._refresh()
            except Exception:
                log.exception("nothing new for /metrics")
        try:
            encode, content_type = choose_encoder(request.headers.get("accept", ""))
        except TypeError:  # the library compares versions as numbers, even where one is a word
            encode, content_type = choose_encoder("")
        names = parse_qs(request.query).get("name[]")
        body = encode(self._registry.restricted_registry(names) if names else self._registry)
        if not gzip_accepted(request.headers.get("accept-encoding", "")):
            return Response(HTTPStatus.OK, body, (("Content-Type", content_type),))
        headers = ("Content-Type", content_type), ("Content-Encoding", "gzip")
        return Response(HTTPStatus.OK, gzip.compress(body), headers)


def _probed(state: str, problem: str) -> Response:
    if problem:
        return Response(HTTPStatus.SERVICE_UNAVAILABLE, f"not {state}: {problem}\n".encode(), _PLAIN)
    return Response(HTTPStatus.OK, f"{state}\n".encode(), _PLAIN)


def _status(status: HTTPStatus, *headers: tuple[str, str]) -> Response:
    return Response(status, f"{status.value} {status.phrase}\n".encode(), (_PLAIN[0], *headers))


_PLAIN = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))
