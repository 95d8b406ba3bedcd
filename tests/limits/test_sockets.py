"""The sockets of a process: the connections of each address, and those on which something came."""

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from otpmail.limits import sockets
from otpmail.limits.descriptors import lowest_free
from otpmail.limits.sockets import Brought, brought, count_by_address, open_descriptors, receiving, reset, shut_down


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Close what a test opens."""
    with ExitStack() as stack:
        yield stack


def _listen(stack: ExitStack, family: socket.AddressFamily, address: object) -> socket.socket:
    listener = stack.enter_context(socket.socket(family))
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(address)  # type: ignore[arg-type]
    listener.listen()
    return listener


def _connect(stack: ExitStack, listener: socket.socket, family: socket.AddressFamily, address: object) -> socket.socket:
    """Connect to the listener, and return the client's end."""
    client = stack.enter_context(socket.socket(family))
    client.connect(address)  # type: ignore[arg-type]
    stack.enter_context(listener.accept()[0])
    return client


async def test_each_address_has_its_own(stack: ExitStack, tmp_path: Path) -> None:
    """Connections count at the address that they came to, listeners and the clients' own ends at none."""
    first = _listen(stack, socket.AF_INET, ("127.0.0.1", 0))
    port = first.getsockname()[1]
    second = _listen(stack, socket.AF_UNIX, str(tmp_path / "socket"))
    for _ in range(3):
        _connect(stack, first, socket.AF_INET, ("127.0.0.1", port))
    _connect(stack, second, socket.AF_UNIX, str(tmp_path / "socket"))
    addresses = (f"127.0.0.1:{port}", f"unix:{tmp_path}/socket", f"[::1]:{port}")
    counts = await count_by_address(addresses)
    assert [counts[address] for address in addresses] == [3, 1, 0]


async def test_a_wildcard_has_those_of_every_address(stack: ExitStack) -> None:
    """A wildcard takes the connections to all addresses of its port, those over IPv4 too."""
    listener = _listen(stack, socket.AF_INET6, ("::", 0))
    port = listener.getsockname()[1]
    _connect(stack, listener, socket.AF_INET, ("127.0.0.1", port))
    _connect(stack, listener, socket.AF_INET, ("127.0.0.2", port))
    assert await count_by_address((f"[::]:{port}",)) == {f"[::]:{port}": 2}


async def test_others_have_the_loop_meanwhile() -> None:
    """Thousands of descriptors are looked at in pieces."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    await count_by_address((), range(100_000, 102_048))
    counting.cancel()
    assert turns == 8


def test_no_descriptor_is_closed(stack: ExitStack) -> None:
    """A descriptor that is looked at stays open, of a socket as well as of a file."""
    ends = socket.socketpair()
    for end in ends:
        stack.enter_context(end)
    with Path(os.devnull).open("rb") as file:
        before = set(open_descriptors())
        asyncio.run(count_by_address(("127.0.0.1:1",), [end.fileno() for end in ends] + [file.fileno(), 10**6]))
        receiving(1, [end.fileno() for end in ends] + [file.fileno(), 10**6])
        assert file.read() == b""
    ends[0].sendall(b"x")
    assert ends[1].recv(1) == b"x"
    assert {end.fileno() for end in ends} <= before


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells when something came")
def test_peers_that_have_sent_something(stack: ExitStack) -> None:
    """A peer counts that has sent something lately, and one that is silent does not."""
    listener = _listen(stack, socket.AF_INET, ("127.0.0.1", 0))
    address = listener.getsockname()
    silent = _connect(stack, listener, socket.AF_INET, address)
    active = _connect(stack, listener, socket.AF_INET, address)
    names = ["{}:{}".format(*client.getsockname()) for client in (silent, active)]
    while set(names) & receiving(0.02):  # a new connection counts as active
        pass
    found: frozenset[str] = frozenset()
    while names[1] not in found:  # at once, unless this process stands still meanwhile
        active.sendall(b"x")
        found = receiving(0.02)
    assert names[0] not in found
    assert receiving(0.02, []) == frozenset()


def test_without_the_list_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no list, all below the lowest free descriptor are looked at."""
    monkeypatch.setattr("otpmail.limits.sockets._DESCRIPTORS", Path("/no/such/folder"))
    assert open_descriptors() == list(range(lowest_free()))


def test_connections_of_some_peers_are_closed(stack: ExitStack) -> None:
    """The peers that are named read the end at once, and others go on."""
    listener = _listen(stack, socket.AF_INET, ("127.0.0.1", 0))
    clients = [_connect(stack, listener, socket.AF_INET, listener.getsockname()) for _ in range(2)]
    shut_down({"{}:{}".format(*clients[0].getsockname())})
    assert clients[0].recv(1) == b""
    clients[1].sendall(b"x")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_what_a_peer_has_brought(stack: ExitStack, address: str) -> None:
    """The octets of a peer count from the first one, those that are not read apart; only peers of the address count."""
    listener, other = (_listen(stack, socket.AF_INET, ("127.0.0.1", 0)) for _ in range(2))
    port = listener.getsockname()[1]
    client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    accepted = stack.enter_context(listener.accept()[0])
    _connect(stack, other, socket.AF_INET, ("127.0.0.1", other.getsockname()[1]))
    name = f"127.0.0.1:{client.getsockname()[1]}"
    client.sendall(bytes(3000))
    accepted.recv(1000, socket.MSG_WAITALL)
    accepted.recv(2000, socket.MSG_PEEK | socket.MSG_WAITALL)
    assert brought([f"{address}:{port}"]) == {name: Brought(3000, 2000)}


@pytest.mark.skipif(sys.platform != "linux", reason="a connect to no address is Linux's")
def test_a_reset_drops_what_is_not_read(stack: ExitStack) -> None:
    """A peer whose connection is reset learns it at once, and nothing that it sent is read any more."""
    listener = _listen(stack, socket.AF_INET, ("127.0.0.1", 0))
    clients, accepted = [], []
    for _ in range(2):
        clients.append(stack.enter_context(socket.create_connection(listener.getsockname())))
        accepted.append(stack.enter_context(listener.accept()[0]))
        clients[-1].sendall(b"hello")
    accepted[0].recv(5, socket.MSG_PEEK | socket.MSG_WAITALL)
    reset([f"127.0.0.1:{clients[0].getsockname()[1]}"])
    with pytest.raises(OSError, match=r"reset|not connected"):
        accepted[0].recv(5)
    with pytest.raises(ConnectionResetError):
        clients[0].recv(5)
    assert accepted[1].recv(5, socket.MSG_WAITALL) == b"hello"


@pytest.mark.skipif(sys.platform != "linux", reason="a reset by connect is Linux's")
def test_a_reset_ends_no_other_connection(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that gets the descriptor of one that is to be reset, as the loop closes that one, goes on."""
    listener = _listen(stack, socket.AF_INET, ("127.0.0.1", 0))
    clients = [stack.enter_context(socket.create_connection(listener.getsockname())) for _ in range(2)]
    ending, other = [stack.enter_context(listener.accept()[0]) for _ in clients]
    looks: list[object] = []

    def name(address: tuple[str, int]) -> str:
        if not looks:
            os.dup2(other.fileno(), ending.fileno())
        looks.append(address)
        return f"{address[0]}:{address[1]}"

    monkeypatch.setattr(sockets, "_name", name)
    reset([f"127.0.0.1:{clients[0].getsockname()[1]}"], [ending.fileno()])
    assert looks
    clients[1].sendall(b"hello")
    assert other.recv(5) == b"hello"
