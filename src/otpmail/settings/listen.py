"""Reads HOST: IP addresses, names, and Unix sockets, into the addresses that the service binds one by one."""

import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Iterator
from functools import partial
from urllib.parse import quote

from otpmail.settings.problems import quoted
from otpmail.threads import call_interruptibly
from otpmail.values import frozen

UNIX = "unix:"
WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104  told from other addresses, not bound
"""Every address of this machine: gRPC binds either for IPv4 and IPv6 at once."""

_LOCALHOST = ("127.0.0.1", "::1")
LONGEST_PATH = 107  # octets: sun_path of unix(7) without the null that ends it
_WITH_PORT = re.compile(r"(?:[^:]*|\[.*\]):[0-9]+")


@frozen()
class ListenAddress:
    """An address to listen on: an IP address, or `unix:` and a path.

    `name` is the name in HOST that was resolved to it, empty where HOST holds the address itself. Of a name's addresses
    this machine may lack some.
    """

    host: str
    name: str = ""

    @property
    def path(self) -> str:
        """The path of a Unix socket; empty for an IP address."""
        return self.host.removeprefix(UNIX) if self.host.startswith(UNIX) else ""

    def with_port(self, port: int) -> str:
        """Return the address as people write it: `127.0.0.1:40700`, `[::1]:40700` or `unix:PATH`."""
        if self.path:
            return self.host
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


def grpc_target(address: str) -> str:
    """Return an address as gRPC reads it: it takes the path of a Unix socket for part of a URL (RFC 3986, 2.1)."""
    return f"{UNIX}{quote(os.fsencode(address.removeprefix(UNIX)))}" if address.startswith(UNIX) else address


def read_hosts(text: str) -> tuple[ListenAddress, ...]:
    """Return the addresses of a list with commas between, each once. Asks the resolver for names.

    Raises ValueError, worded to follow the value, for the first entry that is no place to listen.
    """
    entries = [entry for part in text.split(",") if (entry := part.strip())]
    if not entries:
        raise ValueError("names no address")
    several = len(entries) > 1
    found: dict[str, ListenAddress] = {}
    for entry in entries:
        try:
            addresses = list(_addresses(entry))
        except ValueError as error:
            raise ValueError(f"{quoted(entry)} {error}" if several else str(error)) from None
        for address in addresses:
            # gRPC would replace the socket of a path by that of its other spelling.
            key = os.path.realpath(address.path) if address.path else address.host
            if key not in found or not address.name:  # named by itself, it may not be missing
                found[key] = address
    return tuple(_without_covered(found.values()))


def _addresses(entry: str) -> Iterator[ListenAddress]:
    if entry.startswith(UNIX):
        yield ListenAddress(f"{UNIX}{_socket_path(entry.removeprefix(UNIX))}")
    elif entry == "*":
        yield ListenAddress("0.0.0.0")  # noqa: S104  asked for, and only with ALLOW_ANONYMOUS
    elif entry.lower() == "localhost":  # never looked up: a resolver may know one of the two (RFC 6761, 6.3)
        yield from (ListenAddress(host, entry) for host in _LOCALHOST)
    elif (address := _ip_address(entry)) is not None:
        yield ListenAddress(address)
    else:
        yield from (ListenAddress(host, entry) for host in _resolve(entry))


def _socket_path(path: str) -> str:
    if path.startswith("//"):  # as in a URL: gRPC takes unix:///run/s too
        if not path.startswith("///"):
            raise ValueError("must be unix:PATH or unix:///PATH")
        path = path[2:]
    if not path:
        raise ValueError("names no path")
    if "\0" in path:
        raise ValueError("is no path: it holds a null")
    octets = len(os.fsencode(path))
    if octets > LONGEST_PATH:
        raise ValueError(f"is too long: the path of a Unix socket has at most {LONGEST_PATH} octets, this has {octets}")
    return path


def _ip_address(text: str) -> str | None:
    """Return an IP address in its shortest form, None for any other text."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        if address.is_link_local and not address.scope_id:
            raise ValueError(f"needs the name of its network interface, as in {address}%eth0")
        if address.scope_id and not _is_interface(address.scope_id):
            raise ValueError("names no network interface of this machine")
    return str(address)


def _is_interface(scope: str) -> bool:
    if scope.isascii() and scope.isdecimal():  # its index
        return True
    try:
        socket.if_nametoindex(scope)
    except (OSError, ValueError):  # ValueError: the text can't be a name
        return False
    return True


def _resolve(name: str) -> Iterable[str]:
    try:
        found = call_interruptibly(partial(socket.getaddrinfo, name, None, type=socket.SOCK_STREAM))
    except (OSError, ValueError):  # ValueError: the text can't be a name in the DNS
        if _WITH_PORT.fullmatch(name):
            raise ValueError("names a port, which goes into PORT") from None
        raise ValueError("is neither an IP address, nor unix:PATH, nor a name that can be resolved here") from None
    return [str(address[0]) for *_, address in found]


def _without_covered(addresses: Iterable[ListenAddress]) -> Iterator[ListenAddress]:
    """Leave out the IP addresses that a wildcard among them covers: to bind one of these too would fail."""
    covered = False
    addresses = list(addresses)
    wildcard = next((address for address in addresses if address.host in WILDCARDS), None)
    for address in addresses:
        if address.path or wildcard is None:
            yield address
        elif not covered:
            covered = True
            yield wildcard
