"""Answers /metrics, /livez and /readyz, whatever serves them.

The metrics are those of a registry, in Prometheus' text format or in OpenMetrics. The other two are for probes that
speak no gRPC, such as those of balancers.
"""

import gzip
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted

from otpmail.probes import LIVE, PATHS, PLAIN, READY, Request, Response, status_text

log = logging.getLogger("otpmail")


class Exposition:
    """Answers GET and HEAD: /metrics with what the registry collects at that moment, once `refresh` was awaited.

    /readyz is 200 while `problem` returns nothing. Else it is 503 with that text, which says why callers should go
    elsewhere.
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
        if request.path == LIVE:
            return _probed("live", self._hang())
        if request.path == READY:
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
    return Response(status, status_text(status), (_PLAIN[0], *headers))


_PLAIN = (("Content-Type", PLAIN), ("Cache-Control", "no-store"))
