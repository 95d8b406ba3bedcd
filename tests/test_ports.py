"""A port that a test holds: no other program gets it, and a server of the test can listen there. Real sockets."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack

import pytest

from ports import HOST, ReservedPort
from redis_server import RedisServer

_IP_LOCAL_PORT_RANGE = 51  # of linux/in.h: the ports from which the system chooses one for this socket


def _choosing(opened: ExitStack, port: int) -> socket.socket:
    """Return a socket for which the system can choose this port alone."""
    chooser = opened.enter_context(socket.socket())
    try:
        chooser.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, struct.pack("=I", port << 16 | port))
    except OSError:
        pytest.skip("this Linux is older than 6.3")
    return chooser


def test_the_system_gives_a_held_port_to_nobody() -> None:
    """Neither an outgoing connection nor a server on any free port gets it."""
    with ReservedPort() as held, ExitStack() as opened:
        server = opened.enter_context(socket.create_server((HOST, 0)))
        for options in ((), (socket.SO_REUSEADDR,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)):
            chooser = _choosing(opened, held.port)
            for option in options:
                chooser.setsockopt(socket.SOL_SOCKET, option, 1)
            with pytest.raises(OSError, match="Address already in use"):
                chooser.bind((HOST, 0))
        with pytest.raises(OSError, match="Cannot assign requested address"):
            _choosing(opened, held.port).connect(server.getsockname())


def test_a_server_listens_on_a_held_port_again_and_again() -> None:
    """Between two servers connections to it are refused, also while the last connections are being closed."""
    with ReservedPort() as held:
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((HOST, held.port))
            with (
                socket.create_server((HOST, held.port)) as server,
                socket.create_connection((HOST, held.port)),
                server.accept()[0],
            ):
                pass


def test_neighbours_are_held_together() -> None:
    """A port is held with those that are so many above it."""
    with ReservedPort(1, 100) as held:
        for port in (held.port, held.port + 1, held.port + 100):
            with socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
                other.bind((HOST, port))


def test_a_server_of_redis_has_its_port_until_it_is_closed() -> None:
    """Nobody gets the port of a server that was killed, nor that of its cluster's bus, and it comes back there."""
    with RedisServer() as server:
        server.kill()
        for port in (server.port, server.port + 10_000):
            with socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
                other.bind((HOST, port))
        server.start()
        assert server.command("PING").startswith("+PONG")
