"""Serves the metrics of a registry in Prometheus' text format or in OpenMetrics, at /metrics on HTTP_PORT."""

import gzip
import os
import socket
from http import HTTPStatus
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted

from otpmail.errors import SettingsError
from otpmail.telemetry.http import HttpServer, Request, Response, status_response

_PATH = "/metrics"


class MetricsServer:
    """Answers GET and HEAD /metrics in the running loop, with what the registry collects at that moment."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._http = HttpServer(self._answer)

    def __repr__(self) -> str:
        return f"<MetricsServer {self._http!r}>"

    async def start(self, host: str, port: int) -> str:
        """Listen and return the URL. Raises SettingsError, which names HTTP_HOST and HTTP_PORT, if it cannot."""
        try:
            port = await self._http.start(host, port)
        except (OSError, UnicodeError) as error:
            raise SettingsError(f"HTTP_HOST, HTTP_PORT: can't listen on {host}:{port}: {_cause(error)}") from None
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}{_PATH}"

    async def stop(self) -> None:
        """Stop listening and abort what is open; does nothing if it never listened."""
        await self._http.stop()

    def _answer(self, request: Request) -> Response:
        if request.path != _PATH:
            return status_response(HTTPStatus.NOT_FOUND)
        if request.method not in {"GET", "HEAD"}:
            return status_response(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET, HEAD"))
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


def _cause(error: OSError | UnicodeError) -> str:
    """Return why a bind failed, without the address that asyncio puts before it."""
    if isinstance(error, socket.gaierror) or not isinstance(error, OSError) or not error.errno:
        return str(getattr(error, "strerror", None) or error)
    return os.strerror(error.errno)
