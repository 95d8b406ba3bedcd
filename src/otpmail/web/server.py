"""The door of HTTP: listens on HTTP_PORT, and stops with the service."""

from otpmail.api.service import Api
from otpmail.probes import PATHS, Probe
from otpmail.settings import ServerSettings
from otpmail.settings.hosts import is_loopback
from otpmail.web.app import WebApp
from otpmail.web.binding import DevDoor, SharedDoor, announce
from otpmail.web.gate import Gate
from otpmail.web.listener import Listener
from otpmail.web.methods import Methods


class WebServer:
    """Serves the methods of `api`, what `probe` answers, and the pages of `dev`, on HTTP_HOST and HTTP_PORT.

    Off loopback the methods are served only where callers are asked who they are. `connections` is how many there may
    be. With `shared` it is one of several processes on these. Build it inside a running loop.
    """

    def __init__(
        self,
        settings: ServerSettings,
        api: Api,
        probe: Probe,
        *,
        connections: int,
        shared: SharedDoor | None = None,
        dev: DevDoor | None = None,
    ) -> None:
        self._settings = settings
        self._access = api.access
        on_loopback = is_loopback(settings.http_host)
        hosts, origins = settings.http_allowed_hosts, settings.http_cors_origins
        gate = Gate(on_loopback=on_loopback, hosts=hosts, origins=origins)
        methods = None
        if on_loopback or settings.asks_callers:
            methods = Methods(api, wants_certificate=settings.tls_client_ca_file is not None)
        self._shared = shared
        self._any_port = dev is not None and dev.any_port
        probes = dict.fromkeys(sorted(PATHS), probe if shared is None else shared.probe)
        app = WebApp(probes, gate, methods, None if dev is None else dev.pages)
        self._listener = Listener(
            app,
            most=connections,
            age_seconds=settings.max_connection_age,
            memory=api.memory,
            eager_paths=() if methods is None else api.eager_paths,
        )

    def __repr__(self) -> str:
        return f"<WebServer {self._listener!r}>"

    async def start(self) -> int | None:
        """Listen, and return the port after a line in the log. Raises SettingsError.

        It returns None without HTTP_PORT, and where the supervisor has logged the port.
        """
        host, port, files = self._settings.http_host, self._settings.http_port, self._access.certificates
        if port is None:
            return None
        if self._shared is None:
            port = await self._listener.start(host, port, files, any_port=self._any_port)
            announce(self._settings, port)
        else:
            await self._listener.serve(self._shared.sockets, files, shared=True)
        self._access.follow(self._listener.renew)
        return port if self._shared is None else None

    def retire(self) -> None:
        """Close each connection after its next answer."""
        self._listener.retire()

    async def stop(self, seconds: float = 0.0) -> None:
        """Stop listening, and close connections once they are answered, or after so many seconds."""
        await self._listener.stop(seconds)
