"""Holds a TCP port of HOST by sockets of our own that never listen, until gRPC listens there or for as long as needed.

By its own bind it learns why an address can't be bound, which gRPC does not say. Both binds stand beside each other
since both set SO_REUSEADDR (socket(7)).

Several processes share a port by SO_REUSEPORT. Their supervisor holds it while it runs, and lets nobody bind it but a
process that it is starting; see docs/decisions/160-the-supervisor-holds-the-port.md.
"""

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from otpmail.errors import SettingsError
from otpmail.settings.listen import WILDCARDS, ListenAddress

TAKEN = "another server is there, perhaps an otpmail that still runs"

_HELD = "no server is there, but a program has the port, perhaps for a connection of its own"

ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""The errors of a bind to an address that this machine lacks."""

TRIES = 20
"""How often any port is tried: one that is free on one address may be taken on another."""

_PRIVILEGED = 1024  # ports below it, unless the system is set otherwise (ip(7), ip_unprivileged_port_start)
_SOCKETS = Path("/proc/net/tcp"), Path("/proc/net/tcp6")
_LISTENS = "0A"  # TCP_LISTEN of linux/tcp.h
_OTHER_ADDRESS = "127.53.25.9"  # of loopback (RFC 5735, 3): no server of this machine listens there


class HeldPort(NamedTuple):
    """A port that is bound on every address of HOST, but for those of its names that this machine lacks."""

    hosts: tuple[ListenAddress, ...]
    absent: tuple[ListenAddress, ...]
    port: int
    sockets: tuple[socket.socket, ...]

    def admit(self) -> None:
        """Let sockets listen on the port that set SO_REUSEADDR, and SO_REUSEPORT where others listen already."""
        self._set_reuse(1)

    def bar(self) -> None:
        """Let no further socket listen on the port, whatever it sets; those that listen go on.

        Where HOST is a wildcard, Linux still lets a socket of the same user listen that sets SO_REUSEPORT.
        """
        self._set_reuse(0)
        # Linux notes that sockets with these options share the port, and from then on asks no other one whether it
        # minds (inet_csk_get_port). A socket without them, on another address, ends that.
        with suppress(OSError), socket.socket() as other:
            other.bind((_OTHER_ADDRESS, self.port))

    def _set_reuse(self, value: int) -> None:
        for held in self.sockets:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, value)


class PortTakenError(SettingsError):
    """Another socket has the port."""


@contextmanager
def hold_port(hosts: Sequence[ListenAddress], port: int) -> Iterator[HeldPort]:
    """Bind a socket on each IP address, all on one port, and close them at the end.

    Raises SettingsError, which names HOST or PORT, when one of them can't be bound.
    """
    tries = TRIES if port == 0 else 1
    while True:
        tries -= 1
        with ExitStack() as sockets:
            try:
                held = _bind_all(hosts, port, sockets)
            except PortTakenError:
                if not tries:
                    raise
                continue
            yield held
            return


def cant_listen(setting: str, host: ListenAddress, port: int, why: str) -> str:
    """Return the line about an address that can't be bound."""
    of_name = f" ({host.name})" if host.name else ""
    return f"{setting}: can't listen on {host.with_port(port)}{of_name}; {why}"


def taken(host: ListenAddress, port: int) -> SettingsError:
    """Return the error for a port that another socket has."""
    return PortTakenError(cant_listen("PORT", host, port, port_taken("PORT", port)))


def port_taken(setting: str, port: int) -> str:
    """Return why a port can't be bound that another socket has, and what to do; `setting` has its number."""
    why = f"{TAKEN}: stop it" if _is_served(port) else f"{_HELD}: try again in a minute"
    return f"{why}, or set another {setting} (0: any that is free)"


def _is_served(port: int) -> bool:
    """Whether a server listens on the port, on any address. It is taken to where the system does not say (proc(5))."""
    suffix, known = f":{port:04X}", False
    for table in _SOCKETS:
        with suppress(OSError):
            for line in table.read_text("ascii").splitlines()[1:]:
                known = True
                _, local, _, state, *_ = line.split()
                if state == _LISTENS and local.endswith(suffix):
                    return True
    return not known


def _bind_all(hosts: Sequence[ListenAddress], port: int, held: ExitStack) -> HeldPort:
    absent: list[ListenAddress] = []
    sockets: list[socket.socket] = []
    for host in hosts:
        try:
            sockets.append(held.enter_context(_bind(host.host, port)))
        except OSError as error:
            if error.errno not in ABSENT or not host.name:
                raise _bind_error(host, port, error) from None
            absent.append(host)
        else:
            port = sockets[-1].getsockname()[1]
    for host in absent:
        if all(other in absent for other in hosts if other.name == host.name):
            raise _bind_error(host, port, OSError(errno.EADDRNOTAVAIL, ""))
    return HeldPort(tuple(host for host in hosts if host not in absent), tuple(absent), port, tuple(sockets))


def _bind_error(host: ListenAddress, port: int, error: OSError) -> SettingsError:
    if error.errno == errno.EADDRINUSE:
        return taken(host, port)
    if error.errno == errno.EACCES and port < _PRIVILEGED:
        return SettingsError(cant_listen("PORT", host, port, f"ports below {_PRIVILEGED} need privileges"))
    why = "this machine does not have it" if error.errno in ABSENT else error.strerror or str(error)
    return SettingsError(cant_listen("HOST", host, port, why))


def _bind(host: str, port: int) -> socket.socket:
    if host not in WILDCARDS:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return _bound(socket.socket(family, kind, protocol), address)
    try:  # as gRPC does: either wildcard takes both families, where this machine has IPv6
        both = socket.socket(socket.AF_INET6)
        both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        return _bound(both, ("::", port))
    except OSError as error:
        if error.errno not in ABSENT:
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
