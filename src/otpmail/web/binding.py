"""Opens the sockets of HTTP_HOST and HTTP_PORT: for one process, or for a supervisor whose processes share them."""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from otpmail.errors import SettingsError
from otpmail.held_port import ABSENT, TRIES, PortTakenError, port_taken
from otpmail.probes import Probe
from otpmail.settings import ServerSettings
from otpmail.telemetry.logs import log_event

if TYPE_CHECKING:
    from otpmail.web.app import Pages

BACKLOG = 1024
"""How many connections may wait for a process to take them."""

_KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
"""In seconds: a client whose machine or line is gone says nothing, so a stream that waits is asked for a sign of it."""


class SharedDoor(NamedTuple):
    """HTTP_PORT as one of several processes has it: its supervisor listens, and answers probes for all of them.

    Without HTTP_PORT there are no sockets.
    """

    sockets: tuple[socket.socket, ...]
    probe: Probe


class DevDoor(NamedTuple):
    """HTTP_PORT as `otpmail dev` has it: with pages, and with any other port where its own is taken and `any_port`."""

    pages: "Pages"
    any_port: bool


async def open_sockets(host: str, port: int, *, any_port: bool = False) -> tuple[list[socket.socket], int]:
    """Listen on every address of `host`, all on one port; returns the sockets and the port. Raises SettingsError.

    With `any_port` it is any other port where `port` is taken. As for HOST, addresses of a name that this machine lacks
    are passed over, unless it lacks all of them.
    """
    ports = [port] if port and not any_port else [port, *[0] * TRIES]
    while True:
        try:
            return await _open_all(host, ports.pop(0))
        except PortTakenError:
            if not ports:
                raise


async def _open_all(host: str, port: int) -> tuple[list[socket.socket], int]:
    sockets: list[socket.socket] = []
    absent: dict[str, OSError] = {}
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in infos:
            try:
                sockets.append(_open(family, kind, protocol, (address[0], port, *address[2:])))
            except OSError as error:
                if error.errno not in ABSENT or address[0] == host:
                    raise
                absent[str(address[0])] = error
                continue
            port = port or sockets[0].getsockname()[1]
        if absent and not sockets:
            raise next(iter(absent.values()))
    except (OSError, UnicodeError) as error:
        close_sockets(sockets)
        raise _error(host, port, error) from None
    for name in absent:
        shown = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
        text = f"HTTP_PORT: not listening on {shown}: this machine does not have that address"
        log_event(logging.INFO, "address-absent", text, address=shown)
    return sockets, port


def close_sockets(sockets: Iterable[socket.socket]) -> None:
    """Close them; connections that wait there go to another process that has the same sockets, or end."""
    for opened in sockets:
        opened.close()


def announce(settings: ServerSettings, port: int) -> None:
    """Log the URL of the door."""
    shown = f"[{settings.http_host}]" if ":" in settings.http_host else settings.http_host
    url = f"{'http' if settings.tls_cert_file is None else 'https'}://{shown}:{port}"
    log_event(logging.INFO, "metrics", f"metrics at {url}/metrics", url=f"{url}/metrics")


def _open(family: int, kind: int, protocol: int, address: tuple[Any, ...]) -> socket.socket:
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setblocking(False)  # noqa: FBT003  the socket module's own signature
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # connections inherit these (tcp(7))
        for option, value in _KEEP_ALIVE:
            opened.setsockopt(socket.IPPROTO_TCP, option, value)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(address)
        opened.listen(BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened


def _error(host: str, port: int, error: OSError | UnicodeError) -> SettingsError:
    """Return the error that says why a bind failed, without the address that Python puts before it."""
    where = f"HTTP_HOST, HTTP_PORT: can't listen on {host}:{port}; "
    if isinstance(error, socket.gaierror) or not isinstance(error, OSError) or not error.errno:
        return SettingsError(where + str(getattr(error, "strerror", None) or error))
    if error.errno == errno.EADDRINUSE:
        return PortTakenError(where + port_taken("HTTP_PORT", port))
    return SettingsError(where + os.strerror(error.errno))


def peer_of(name: object) -> str:
    """Return the address of a client as gRPC writes it."""
    if not isinstance(name, tuple):
        return "unix:"
    host = str(name[0]).partition("%")[0]
    return f"ipv6:{quote(f'[{host}]', safe=':')}:{name[1]}" if ":" in host else f"ipv4:{host}:{name[1]}"
