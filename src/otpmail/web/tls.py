"""TLS of HTTP_PORT: its context, and handshakes, each of which is a connection that counts and has an end.

The loops' own servers with TLS tell of a connection only once its handshake is done. Until then nobody could close it.
"""

import asyncio
import os
import socket
import ssl
from abc import abstractmethod
from collections.abc import Callable
from typing import Self

from otpmail.errors import SettingsError
from otpmail.settings.certificates import CertificateFiles

_FAREWELL_SECONDS = 3.0  # for a client to close TLS on its side


class Handshake(asyncio.Transport):
    """Stands for the transport of a connection until its handshake is done. It carries nothing."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        super().__init__()
        self._task = task
        self._is_closing = False

    def __repr__(self) -> str:
        return f"<Handshake{' closing' * self._is_closing}>"

    def is_closing(self) -> bool:
        """Whether it is given up."""
        return self._is_closing

    def abort(self) -> None:
        """Give it up."""
        self._is_closing = True
        self._task.cancel()

    close = abort

    def get_write_buffer_size(self) -> int:
        """Return 0: nothing waits to be sent."""
        return 0

    def pause_reading(self) -> None:
        """Go on: the handshake needs what comes."""

    resume_reading = pause_reading


class Guest(asyncio.Protocol):
    """A connection, whose protocol counts it from `begin` until `connection_lost`."""

    transport: asyncio.Transport

    @abstractmethod
    def begin(self, transport: asyncio.Transport) -> None:
        """Count it."""


class TlsServer:
    """Shakes hands on each connection that is accepted, by `context`, which may be replaced."""

    def __init__(self, make: Callable[[], Guest], context: ssl.SSLContext, *, handshake_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._make, self.context = make, context
        self._handshake_seconds = handshake_seconds
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<TlsServer {len(self._tasks)} handshakes>"

    async def wait_closed(self) -> None:
        """Wait for handshakes that were given up."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def begin(self, accepted: socket.socket) -> None:
        """Begin a handshake. Its connection is closed as others are, also once no more are accepted."""
        guest = self._make()
        task = self._loop.create_task(self._shake(guest, accepted))
        handshake = Handshake(task)
        guest.begin(handshake)
        self._tasks.add(task)

        def end(task: asyncio.Task[None]) -> None:
            """End the connection of a handshake that was given up or has failed."""
            self._tasks.discard(task)
            if guest.transport is handshake:
                accepted.close()
                guest.connection_lost(None)

        task.add_done_callback(end)

    async def _shake(self, guest: Guest, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: guest,
                accepted,
                ssl=self.context,
                ssl_handshake_timeout=self._handshake_seconds,
                ssl_shutdown_timeout=_FAREWELL_SECONDS,
            )
        except OSError:  # also of TLS and a timeout: the client speaks no TLS, or has gone
            return


def tls_context(files: CertificateFiles) -> ssl.SSLContext:
    """Return a context that serves TLS 1.2 and 1.3 with these files. A client may show a certificate, and need not.

    Probes have none. `web.methods` refuses calls without one where callers need one. Raises SettingsError for files
    that OpenSSL refuses, such as a key that is too short for it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # Python reads certificates from files only: these have no name, and end with their descriptors.
    try:
        with _InMemory(files.chain) as chain, _InMemory(files.key) as key:
            context.load_cert_chain(chain.path, key.path)
        if files.authorities is not None:
            context.load_verify_locations(cadata=files.authorities.decode())
            context.verify_mode = ssl.CERT_OPTIONAL
    except ssl.SSLError as error:
        raise SettingsError(f"TLS_CERT_FILE: OpenSSL refuses it for HTTP_PORT: {error.reason or error}") from None
    return context


class _InMemory:
    """A file without a name that holds these octets."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def __enter__(self) -> Self:
        self._descriptor = os.memfd_create("otpmail", os.MFD_CLOEXEC)
        os.write(self._descriptor, self._octets)
        self.path = f"/proc/self/fd/{self._descriptor}"
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
