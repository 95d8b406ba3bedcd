"""The door of HTTP: listens on HTTP_PORT, and stops with the service."""

import logging
from collections.abc import Mapping

from otpmail.api.service import Api
from otpmail.settings import ServerSettings
from otpmail.settings.hosts import is_loopback
from otpmail.telemetry.logs import log_event
from otpmail.web.app import Page, Pages, WebApp
from otpmail.web.gate import Gate
from otpmail.web.listener import Listener
from otpmail.web.methods import Methods


class WebServer:
    """Serves the methods of `api`, the `probes` by their paths, and `pages`, on HTTP_HOST and HTTP_PORT.

    Off loopback the methods are served only where callers are asked who they are. `connections` is how many there may
    be. Build it inside a running loop.
    """

    def __init__(
        self,
        settings: ServerSettings,
        api: Api,
        probes: Mapping[str, Page],
        *,
        connections: int,
        pages: Pages | None = None,
    ) -> None:
        self._settings = settings
        self._access = api.access
        on_loopback = is_loopback(settings.http_host)
        hosts, origins = settings.http_allowed_hosts, settings.http_cors_origins
        gate = Gate(on_loopback=on_loopback, hosts=hosts, origins=origins)
        methods = None
        if on_loopback or settings.asks_callers:
            methods = Methods(api, wants_certificate=settings.tls_client_ca_file is not None)
        app = WebApp(probes, gate, methods, pages)
        self._listener = Listener(app, most=connections, age_seconds=settings.max_connection_age)

    def __repr__(self) -> str:
        return f"<WebServer {self._listener!r}>"

    async def start(self) -> str:
        """Listen, and return the URL after a line in the log; empty without HTTP_PORT. Raises SettingsError."""
        host, port = self._settings.http_host, self._settings.http_port
        if port is None:
            return ""
        port = await self._listener.start(host, port, self._access.certificates)
        self._access.follow(self._listener.renew)
        shown = f"[{host}]" if ":" in host else host
        scheme = "http" if self._access.certificates is None else "https"
        url = f"{scheme}://{shown}:{port}"
        log_event(logging.INFO, "metrics", f"metrics at {url}/metrics", url=f"{url}/metrics")
        return url

    def retire(self) -> None:
        """Close each connection after its next answer."""
        self._listener.retire()

    async def stop(self, seconds: float = 0.0) -> None:
        """Stop listening, and close connections once they are answered, or after so many seconds."""
        await self._listener.stop(seconds)
