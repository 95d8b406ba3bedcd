"""Binds every address of HOST, or none: gRPC by itself is content with one of several, and does not say why.

Each TCP address is first bound by a socket of our own. It learns the cause of a failure, and holds the port until gRPC
listens there. That works because both set SO_REUSEADDR and ours never listens (socket(7)).
"""

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from otpmail.errors import SettingsError
from otpmail.settings import ServerSettings
from otpmail.settings.listen import WILDCARDS, ListenAddress, grpc_target

_TRIES = 20  # for PORT=0: a port that is free on one address may be taken on another
_LOOK_SECONDS = 1.0
_PRIVILEGED = 1024  # ports below it, unless the system is set otherwise (ip(7), ip_unprivileged_port_start)
_ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_TAKEN = "another server is there"


class Listening(NamedTuple):
    """The addresses that are bound, in the order of HOST, and those of its names that this machine lacks."""

    addresses: tuple[str, ...]
    absent: tuple[str, ...]


class _Taken(SettingsError):
    """Another socket has the port."""


def listen(settings: ServerSettings, add_port: Callable[[str], int]) -> Listening:
    """Bind all addresses of HOST on one port; `add_port` is gRPC's, and raises RuntimeError where it fails.

    Raises SettingsError, which names HOST or PORT, when one of them can't be bound. No Unix socket is left then.
    """
    for host in settings.hosts:
        if host.path:
            _check_path(host)
    with ExitStack() as held:
        port, absent = _hold_port([host for host in settings.hosts if not host.path], settings.port, held)
        bound = [host for host in settings.hosts if host not in absent]
        with ExitStack() as made:
            for host in bound:
                _add(host, port, settings.socket_mode, add_port)
                if host.path:
                    made.callback(Path(host.path).unlink, missing_ok=True)
            made.pop_all()
    return Listening(tuple(host.with_port(port) for host in bound), tuple(host.with_port(port) for host in absent))


def _add(host: ListenAddress, port: int, mode: int | None, add_port: Callable[[str], int]) -> None:
    target = grpc_target(host.with_port(port))
    try:
        if host.path and mode is not None:
            with _umask(~mode & 0o777):  # a chmod would come after the first caller
                add_port(target)
        else:
            add_port(target)
    except RuntimeError:
        if not host.path:
            raise _taken(host, port) from None
        there = "a socket is there that this user may not replace"
        why = there if Path(host.path).exists() else "the system makes no socket there"
        raise SettingsError(_line("HOST", host, port, why)) from None


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _line(setting: str, host: ListenAddress, port: int, why: str) -> str:
    of_name = f" ({host.name})" if host.name else ""
    return f"{setting}: can't listen on {host.with_port(port)}{of_name}; {why}"


def _taken(host: ListenAddress, port: int) -> SettingsError:
    return _Taken(_line("PORT", host, port, f"{_TAKEN}, and PORT=0 takes a port that is free"))


# TCP.


def _hold_port(hosts: list[ListenAddress], port: int, held: ExitStack) -> tuple[int, list[ListenAddress]]:
    """Bind a socket on each address until `held` closes them. Returns the port and the absent addresses."""
    tries = _TRIES if port == 0 else 1
    while True:
        tries -= 1
        with ExitStack() as sockets:
            try:
                answer = _bind_all(hosts, port, sockets)
            except _Taken:
                if not tries:
                    raise
            else:
                held.enter_context(sockets.pop_all())
                return answer


def _bind_all(hosts: list[ListenAddress], port: int, sockets: ExitStack) -> tuple[int, list[ListenAddress]]:
    absent: list[ListenAddress] = []
    for host in hosts:
        try:
            port = sockets.enter_context(_bind(host.host, port)).getsockname()[1]
        except OSError as error:
            if error.errno not in _ABSENT or not host.name:
                raise _bind_error(host, port, error) from None
            absent.append(host)
    for host in absent:
        if all(other in absent for other in hosts if other.name == host.name):
            raise _bind_error(host, port, OSError(errno.EADDRNOTAVAIL, ""))
    return port, absent


def _bind_error(host: ListenAddress, port: int, error: OSError) -> SettingsError:
    if error.errno == errno.EADDRINUSE:
        return _taken(host, port)
    if error.errno == errno.EACCES and port < _PRIVILEGED:
        return SettingsError(_line("PORT", host, port, f"ports below {_PRIVILEGED} need privileges"))
    why = "this machine does not have it" if error.errno in _ABSENT else error.strerror or str(error)
    return SettingsError(_line("HOST", host, port, why))


def _bind(host: str, port: int) -> socket.socket:
    if host not in WILDCARDS:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return _bound(socket.socket(family, kind, protocol), address)
    try:  # as gRPC does: either wildcard takes both families, where this machine has IPv6
        both = socket.socket(socket.AF_INET6)
        both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        return _bound(both, ("::", port))
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return _bound(socket.socket(), ("0.0.0.0", port))  # noqa: S104  asked for, and only with ALLOW_ANONYMOUS


def _bound(unbound: socket.socket, address: tuple[object, ...]) -> socket.socket:
    try:
        unbound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        unbound.bind(address)
    except OSError:
        unbound.close()
        raise
    return unbound


# Unix sockets.


def _check_path(host: ListenAddress) -> None:
    """Raise SettingsError where gRPC would fail, or would take the path from a server that does not notice."""
    why = _why_not(Path(host.path))
    if why:
        raise SettingsError(_line("HOST", host, 0, why))


def _why_not(path: Path) -> str:
    """Return why no socket can be made at `path`, empty where one can. gRPC replaces one that a process left behind."""
    folder = path.parent
    try:
        if not folder.is_dir():
            return f"there is no folder {folder}"
        kind = path.stat().st_mode if path.exists() else None
    except OSError as error:
        return f"folder {folder}: {error.strerror or error}"
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        return f"this user may not make a socket in {folder}"
    if kind is None:
        return ""
    return _why_in_use(path) if stat.S_ISSOCK(kind) else "a file is there that is no socket"


def _why_in_use(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_LOOK_SECONDS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:  # its server has gone
            return ""
        except PermissionError:
            return "a socket is there that this user may not connect to"
        except OSError:  # one with a full backlog, or of another kind
            return _TAKEN
    return _TAKEN
