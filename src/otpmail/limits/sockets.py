"""Looks at the sockets of this process: most of them are gRPC's, which tells nothing about its connections."""

import asyncio
import ctypes
import os
import socket
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from fcntl import ioctl
from pathlib import Path
from termios import FIONREAD
from typing import NamedTuple
from urllib.parse import unquote

from otpmail.limits.descriptors import lowest_free

_ANY = ("0.0.0.0:", "[::]:")
_MAPPED = "::ffff:"  # an IPv4 address at a socket for both families (RFC 4291, 2.5.5.2)
_DESCRIPTORS = Path("/proc/self/fd")
_AT_ONCE = 256  # descriptors, in about a millisecond
_MOST = 4096  # descriptors that are looked at without a pause
_SINCE_RECEIVED = struct.Struct("=52xI")  # tcpi_last_data_recv of linux/tcp.h, in milliseconds
_RECEIVED = struct.Struct("=128xQ")  # tcpi_bytes_received there
_NO_ADDRESS = struct.pack("=H14x", socket.AF_UNSPEC)  # a connect(2) to it ends a connection, by Linux
_UNREAD = struct.Struct("i")  # FIONREAD of ioctl_tty(2)

Name = str
"""`127.0.0.1:40700`, `[::1]:40700` or `unix:PATH`."""


async def count_by_address(addresses: Iterable[Name], descriptors: Iterable[int] | None = None) -> Counter[Name]:
    """Count the connections at each of the addresses that this process listens on. It gives way between its slices."""
    wildcards = {address.rpartition(":")[2]: address for address in addresses if address.startswith(_ANY)}
    wanted, counts = frozenset(addresses), Counter[Name]()
    for number, descriptor in enumerate(open_descriptors() if descriptors is None else descriptors, 1):
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
        with suppress(OSError), _borrow(descriptor) as borrowed:
            name = _name(borrowed.getsockname())
            address = name if name in wanted else wildcards.get(name.rpartition(":")[2], "")
            if address and not borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                counts[address] += 1
    return counts


class Brought(NamedTuple):
    """How many octets a connection has brought, by TCP, and how many of these wait in the system to be read."""

    octets: int
    unread: int


def brought(addresses: Collection[Name], descriptors: Iterable[int] | None = None) -> dict[Name, Brought]:
    """Return what each peer has brought to one of these addresses.

    No peer is returned where the system does not tell, and of thousands of connections only the first ones are.
    """
    wildcards = {address.rpartition(":")[2] for address in addresses if address.startswith(_ANY)}
    found: dict[Name, Brought] = {}
    for _, descriptor in zip(range(_MOST), open_descriptors() if descriptors is None else descriptors, strict=False):
        with suppress(OSError, struct.error, AttributeError), _borrow(descriptor) as borrowed:
            name = _name(borrowed.getsockname())
            if name in addresses or name.rpartition(":")[2] in wildcards:
                info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size)
                (unread,) = _UNREAD.unpack(ioctl(descriptor, FIONREAD, bytes(_UNREAD.size)))
                found[_name(borrowed.getpeername())] = Brought(_RECEIVED.unpack(info)[0], unread)
    return found


def receiving(seconds: float, descriptors: Iterable[int] | None = None) -> frozenset[Name]:
    """Return the peers from which data came in the last `seconds`, by TCP.

    No peer is returned where the system does not tell, and of thousands of connections only the first ones are.
    """
    found: set[Name] = set()
    for _, descriptor in zip(range(_MOST), open_descriptors() if descriptors is None else descriptors, strict=False):
        with suppress(OSError, struct.error, AttributeError), _borrow(descriptor) as borrowed:
            info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SINCE_RECEIVED.size)
            if _SINCE_RECEIVED.unpack(info)[0] <= seconds * 1000:
                found.add(_name(borrowed.getpeername()))
    return frozenset(found)


def shut_down(peers: Collection[Name], descriptors: Iterable[int] | None = None) -> None:
    """Close the connections of these peers for both sides, by TCP. gRPC, which owns them, sees the end at once."""
    for descriptor in open_descriptors() if descriptors is None else descriptors:
        with suppress(OSError), _borrow(descriptor) as borrowed:
            if borrowed.family != socket.AF_UNIX and _name(borrowed.getpeername()) in peers:
                borrowed.shutdown(socket.SHUT_RDWR)


def reset(peers: Collection[Name], descriptors: Iterable[int] | None = None) -> None:
    """End the connections of these peers at once, by a TCP reset: what has come and is not read is dropped.

    After a `shut_down` it would still be read, and whatever a peer goes on to send.
    """
    for descriptor in open_descriptors() if descriptors is None else descriptors:
        with suppress(OSError), _borrow(descriptor) as borrowed:
            if borrowed.family != socket.AF_UNIX and _name(borrowed.getpeername()) in peers:
                _reset(descriptor, peers)


def _reset(descriptor: int, peers: Collection[Name]) -> None:
    """Reset a connection by a copy of its descriptor: the loop may close the descriptor, and reuse its number."""
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        if _name(copy.getpeername()) in peers:
            ctypes.CDLL(None).connect(copy.fileno(), _NO_ADDRESS, len(_NO_ADDRESS))


def open_descriptors() -> list[int]:
    """Return the descriptors of this process, some of which may be closed meanwhile."""
    try:
        return [int(path.name) for path in _DESCRIPTORS.iterdir()]
    except OSError:  # another system, or no descriptor is free to look
        return list(range(lowest_free()))


@contextmanager
def _borrow(descriptor: int) -> Iterator[socket.socket]:
    """Yield the socket of a descriptor, which stays open whatever happens. Raises OSError where no socket is."""
    borrowed = socket.socket(fileno=descriptor)
    try:
        yield borrowed
    finally:
        borrowed.detach()


def name_of_peer(peer: str) -> Name:
    """Return the name in what gRPC calls a peer: `ipv6:%5B::1%5D:40000`."""
    return unquote(peer.partition(":")[2])


def _name(address: object) -> Name:
    """Return the name of what `getsockname` or `getpeername` returned."""
    if not isinstance(address, tuple):
        return f"unix:{address}"
    host, port = address[0].removeprefix(_MAPPED).partition("%")[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
