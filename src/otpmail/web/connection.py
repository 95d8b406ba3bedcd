"""One connection of HTTP/1.1: uvicorn's protocol on httptools, with limits of its own.

uvicorn bounds neither the head of a request nor the time that it takes, and lets a call go on whose caller has gone.
"""

import asyncio
import logging
from contextvars import Context
from typing import Any, Protocol, cast
from urllib.parse import quote

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

HEAD_OCTETS = 64 << 10
"""The most of a request's line and fields, as much as gRPC takes of metadata."""

MOST_FIELDS = 100

HEAD_SECONDS = 10.0
"""The most that a head may take to come."""

_MOST_PIPELINED = 64
_UPGRADE = frozenset((b"upgrade", b"http2-settings"))
"""The fields, and the tokens of Connection, in which a client offers another protocol."""

_SILENT = logging.Logger("uvicorn", logging.CRITICAL + 1)  # noqa: LOG001  any client can cause what uvicorn logs

SCOPE = "otpmail.connection"
"""The key of a scope under which a request has its connection."""


class Connections(Protocol):
    """The connections of a server; uvicorn's protocol adds itself, and discards itself at its end."""

    def add(self, connection: "Connection") -> None:
        """Count a connection, or close it or another one where there are too many."""

    def discard(self, connection: "Connection") -> None:
        """Count it no more."""

    def is_retiring(self, connection: "Connection") -> bool:
        """Whether it is to close after its next answer."""


class Connection(HttpToolsProtocol):
    """One connection. `peer` is its client as gRPC writes it."""

    peer = "unix:"

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        head_seconds: float = HEAD_SECONDS,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger, self.access_log = _SILENT, False
        self.parser = self._new_parser()
        self._head_seconds = head_seconds
        self._in_head = True
        self._head_octets = 0
        self._fields = 0  # of the head and of the trailers
        self._has_upgrade = False  # whether the request is to be read again, without its Upgrade
        self._had_body = False  # whether the latest octets held any of a body
        self._status = 400  # of the request that can't be read
        self._timer: asyncio.TimerHandle | None = None
        self.opened = self.loop.time()
        self._running: asyncio.Task[None] | None = None
        self.is_for_probes = False
        """Whether it came beyond the limit of connections, so that only probes are answered."""
        self.used = 0
        """At how many requests of the server it had its last one."""

    def __repr__(self) -> str:
        return f"<Connection {self.peer}{' idle' * self.is_idle}>"

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def certificate(self) -> bytes | None:
        """The certificate that the client has shown, as DER; None without one."""
        found = self.transport.get_extra_info("ssl_object")
        return None if found is None else found.getpeercert(binary_form=True)

    # asyncio calls these.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count it, and give it time for the head of its first request."""
        super().connection_made(transport)
        name = transport.get_extra_info("peername")
        if isinstance(name, tuple):
            host = str(name[0]).partition("%")[0]
            self.peer = f"ipv6:{quote(f'[{host}]', safe=':')}:{name[1]}" if ":" in host else f"ipv4:{host}:{name[1]}"
        self.used = self.server_state.total_requests
        self._timer = self.loop.call_later(self._head_seconds, self._time_out)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the call that runs: its caller has gone."""
        self._stop_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self.pipeline.clear()
        if self._running is not None:
            self._running.cancel()

    def data_received(self, data: bytes) -> None:
        """Read on. A head must be whole in time, and neither it nor trailers may be too long."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._had_body = False
        self._parse(data)
        if not self._in_head:
            self._head_octets = 0 if self._had_body else self._head_octets + len(data)
            if self._head_octets > HEAD_OCTETS and not self.transport.is_closing():
                self.transport.close()
            return
        self._head_octets += len(data)
        if self._head_octets > HEAD_OCTETS:
            self.refuse(431)
        elif self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self._head_seconds, self._time_out)

    def _parse(self, data: bytes) -> None:
        """Parse octets. A request that offers another protocol is read again without its offer (RFC 9110, 7.8).

        httptools takes what follows the head of such a request for the other protocol, its body included.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except HttpParserError:
                self.send_400_response("")
            except HttpParserUpgrade as upgrade:
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self.parser = self._new_parser()
                continue
            return

    def _new_parser(self) -> HttpRequestParser:
        parser = HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return parser

    def _head_without_upgrade(self) -> bytes:
        """Return the head of the latest request as its client would have written it without an offer."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                tokens = (token.strip() for token in value.split(b","))
                kept = b", ".join(token for token in tokens if token.lower() not in _UPGRADE)
                lines.append(b"connection: " + kept)
            elif name not in _UPGRADE:
                lines.append(name + b": " + value)
        return b"\r\n".join((*lines, b"", b""))

    # Callbacks of the parser.

    def on_message_begin(self) -> None:
        """Begin to read the head of a request."""
        super().on_message_begin()
        self._in_head = True
        self._has_upgrade = False
        self._head_octets = 0
        self._fields = 0
        cast("dict[str, Any]", self.scope)[SCOPE] = self

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field. Raises ValueError for too many, which ends the connection.

        A trailer is only counted: merged into the head it would be a field that nobody has checked (RFC 9110, 6.5.1).
        """
        if self._fields == MOST_FIELDS:
            self._status = 431
            raise ValueError
        self._fields += 1
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer. Raises ValueError for CONNECT, and for too many requests that wait for no answers."""
        if self.parser.get_method() == b"CONNECT":
            self._status = 405
            raise ValueError
        self._has_upgrade = self.parser.should_upgrade()
        if self._has_upgrade:
            return
        self._in_head = False
        self._stop_timer()
        if len(self.pipeline) >= _MOST_PIPELINED:
            self._status = 429
            raise ValueError
        self.used = self.server_state.total_requests
        super().on_headers_complete()
        if self.is_for_probes or cast("Connections", self.connections).is_retiring(self):
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._had_body = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request, unless it is to be read again."""
        if not self._has_upgrade:
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # The task that ends one request starts the next one, whose caller may be another.
        task = self.loop.create_task(cycle.run_asgi(app), context=Context())
        self._running = task
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    # Ends.

    def retire(self) -> None:
        """Close after the answer that is being made, if there is one."""
        if not self.is_idle:
            self.cycle.keep_alive = False

    def refuse(self, status: int) -> None:
        """Answer that the request can't be taken, and close; only close where another answer has begun."""
        if self.is_idle:
            self._status = status
            self.send_400_response("")
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  the status says enough
        """Answer a request that can't be read, and close."""
        self._in_head = False
        line = STATUS_LINE[self._status]
        body = line.split(b" ", 1)[1].strip() + b"\n"
        fields = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(
            body
        )
        self.transport.write(line + fields + body)
        self.transport.close()

    def _time_out(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.refuse(408)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
