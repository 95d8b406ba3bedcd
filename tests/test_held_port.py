"""A port that a supervisor holds: its processes share it, and nobody else gets it. Real sockets."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from otpmail.errors import SettingsError
from otpmail.held_port import hold_port
from otpmail.settings.listen import ListenAddress, read_hosts

if TYPE_CHECKING:
    from collections.abc import Iterator

_HOST = "127.0.0.1"
_REUSE = (socket.SO_REUSEADDR, socket.SO_REUSEPORT)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Close what a test opens."""
    with ExitStack() as stack:
        yield stack


def _listen(opened: ExitStack, port: int, *options: int, host: str = _HOST) -> None:
    """Listen as a server with these options does; gRPC sets both of `_REUSE`. Raises OSError."""
    listener = opened.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
    for option in options:
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
    listener.bind((host, port))
    listener.listen()


def test_processes_share_a_port_that_nobody_else_gets(opened: ExitStack) -> None:
    """While processes start they may listen; after that nobody may, whatever it sets, until another one starts."""
    held = opened.enter_context(hold_port([ListenAddress(_HOST)], 0))
    for _ in range(2):
        held.admit()
        _listen(opened, held.port, *_REUSE)
        _listen(opened, held.port, *_REUSE)
        held.bar()
        for options in ((), (socket.SO_REUSEADDR,), (socket.SO_REUSEPORT,), _REUSE):
            with pytest.raises(OSError, match="Address already in use"):
                _listen(opened, held.port, *options)
    for _ in range(4):  # what listened goes on
        opened.enter_context(socket.create_connection((_HOST, held.port)))


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEPORT,), _REUSE], ids=["plain", "port", "both"])
def test_a_port_on_which_a_server_listens_is_refused(opened: ExitStack, options: tuple[int, ...]) -> None:
    """A server that is there already ends the start, also one that would share its port."""
    listener = opened.enter_context(socket.socket())
    for option in options:
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
    listener.bind((_HOST, 0))
    listener.listen()
    port = listener.getsockname()[1]
    with pytest.raises(SettingsError, match=f"PORT: can't listen on {_HOST}:{port}; another server is there"):
        opened.enter_context(hold_port([ListenAddress(_HOST)], port))


@pytest.mark.parametrize("ended", [False, True], ids=["open", "ended"])
def test_a_port_that_a_connection_has_is_refused(opened: ExitStack, *, ended: bool) -> None:
    """The line about a port of a connection says that no server is there, also a while after its end."""
    server = opened.enter_context(socket.create_server((_HOST, 0)))
    client = opened.enter_context(socket.socket())
    client.connect(server.getsockname())
    port = client.getsockname()[1]
    if ended:
        client.close()
    with pytest.raises(SettingsError) as caught:
        opened.enter_context(hold_port([ListenAddress(_HOST)], port))
    assert str(caught.value) == (
        f"PORT: can't listen on {_HOST}:{port}; no server is there, but a program has the port, perhaps for a "
        "connection of its own: try again in a minute, or set another PORT (0: any that is free)"
    )


def test_every_address_is_held_on_one_port(opened: ExitStack) -> None:
    """With PORT=0 one free port is held on all addresses of HOST, and freed at the end."""
    hosts = read_hosts("127.0.0.1,127.0.0.2")
    with hold_port(hosts, 0) as held:
        assert held.hosts == hosts
        for host in hosts:
            with pytest.raises(OSError, match="Address already in use"):
                _listen(opened, held.port, host=host.host)
    for host in hosts:
        _listen(opened, held.port, host=host.host)
