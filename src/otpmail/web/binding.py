"""Opens the sockets of HTTP_HOST and HTTP_PORT: for one process, or for a supervisor whose processes share them."""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import quote

from otpmail.errors import SettingsError
from otpmail.held_port import ABSENT, port_taken
from otpmail.probes import Probe
from otpmail.settings import ServerSettings
from otpmail.telemetry.logs import log_event

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


async def open_sockets(host: str, port: int) -> tuple[list[socket.socket], int]:
    """Listen on every address of `host`, all on one port; returns the sockets and the port. Raises SettingsError.

    As for HOST, addresses of a name that this machine lacks are passed over, unless it lacks all of them.
    """
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
        raise SettingsError(f"HTTP_HOST, HTTP_PORT: can't listen on {host}:{port}; {_cause(error)}") from None
    for name in absent:
        shown = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
        text = f"HTTP_PORT: not listening on {shown}: this machine does not have that address"
        log_event(logging.INFO, "address-absent", text, address=shown)
    return sockets, port


def close_sockets(sockets: Iterable[socket.socket]) -> None:
    """Close them; connections that wait there go to another process that has the same sockets, or end."""
    for opened in sockets:
        opened.close()


def announce(settings: ServerSettings, port: int) -> str:
    """Return the URL of the door, after a line in the log."""
    shown = f"[{settings.http_host}]" if ":" in settings.http_host else settings.http_host
    url = f"{'http' if settings.tls_cert_file is None else 'https'}://{shown}:{port}"
    log_event(logging.INFO, "metrics", f"metrics at {url}/metrics", url=f"{url}/metrics")
    return url


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


def _cause(error: OSError | UnicodeError) -> str:
    """Return why a bind failed, without the address that Python puts before it."""
    if isinstance(error, socket.gaierror) or not isinstance(error, OSError) or not error.errno:
        return str(getattr(error, "strerror", None) or error)
    return port_taken("HTTP_PORT") if error.errno == errno.EADDRINUSE else os.strerror(error.errno)


def peer_of(name: object) -> str:
    """Return the address of a client as gRPC writes it."""
    if not isinstance(name, tuple):
        return "unix:"
    host = str(name[0]).partition("%")[0]
    return f"ipv6:{quote(f'[{host}]', safe=':')}:{name[1]}" if ":" in host else f"ipv4:{host}:{name[1]}"
