"""Serves /metrics, /livez and /readyz on HTTP_PORT.

The metrics are those of a registry, in Prometheus' text format or in OpenMetrics. The other two are for probes that
speak no gRPC, or no TLS, as those of the kubelet.
"""

import gzip
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted

from otpmail.errors import SettingsError
from otpmail.telemetry.http import HttpServer, Request, Response, status_response
from otpmail.telemetry.logs import log_event

_METRICS = "/metrics"
PATHS = frozenset({_METRICS, "/livez", "/readyz"})
"""What is answered to everybody, also where callers are asked who they are."""


class MetricsServer:
    """Answers GET and HEAD in the running loop: /metrics with what the registry collects at that moment.

    /readyz is 200 while `problem` returns nothing. Else it is 503 with that text: why callers should not come here.
    /livez is 200 whenever it is answered at all, unless `hang` returns what does not go on. `refresh` is awaited before
    each answer.
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
        self._paths: dict[str, Callable[[Request], Response]] = {
            _METRICS: self._metrics,
            "/livez": lambda _: _probed("live", hang()),
            "/readyz": lambda _: _probed("ready", problem()),
        }
        self._http = HttpServer(self.answer, refresh=refresh)

    def __repr__(self) -> str:
        return f"<MetricsServer {self._http!r}>"

    async def start(self, host: str, port: int) -> str:
        """Listen, and return the URL after a line in the log.

        Raises SettingsError, which names HTTP_HOST and HTTP_PORT, if it cannot.
        """
        try:
            port = await self._http.start(host, port)
        except (OSError, UnicodeError) as error:
            raise SettingsError(f"HTTP_HOST, HTTP_PORT: can't listen on {host}:{port}: {_cause(error)}") from None
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{port}{_METRICS}"
        log_event(logging.INFO, "metrics", f"metrics at {url}", url=url)
        return url

    async def stop(self) -> None:
        """Stop listening and abort what is open; does nothing if it never listened."""
        await self._http.stop()

    def answer(self, request: Request) -> Response:
        """Answer a request for one of PATHS, or with 404."""
        answer = self._paths.get(request.path)
        if answer is None:
            return status_response(HTTPStatus.NOT_FOUND)
        if request.method not in {"GET", "HEAD"}:
            return status_response(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET, HEAD"))
        return answer(request)

    def _metrics(self, request: Request) -> Response:
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


_PLAIN = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))


def _cause(error: OSError | UnicodeError) -> str:
    """Return why a bind failed, without the address that asyncio puts before it."""
    if isinstance(error, socket.gaierror) or not isinstance(error, OSError) or not error.errno:
        return str(getattr(error, "strerror", None) or error)
    return os.strerror(error.errno)
