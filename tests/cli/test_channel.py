"""Channels to a service: without a proxy on this machine, and with the reason why none answers."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from otpmail.cli.channel import open_channel, unreachable
from otpmail.cli.endpoint import Service
from otpmail.settings import ClientSettings
from users import as_another_user, folder_for_all


@pytest.mark.parametrize(
    ("address", "direct"),
    [
        *((address, True) for address in ("127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:s")),
        ("0.0.0.0:1", True),
        *((address, False) for address in ("192.0.2.1:1", "[2001:db8::1]:1", "mail.example:1")),
    ],
)
def test_a_service_on_this_machine_is_called_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch, address: str, *, direct: bool
) -> None:
    """No proxy is asked for loopback, Unix sockets and other addresses of this machine; for others gRPC decides."""
    opened: list[tuple[str, Any]] = []
    monkeypatch.setattr(grpc, "insecure_channel", lambda *given: opened.append(given))
    open_channel(Service(address, ClientSettings.from_layers({})))
    assert opened == [(address, (("grpc.enable_http_proxy", 0),) if direct else ())]


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_the_variables_of_docker(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """A proxy that gRPC finds in the environment gets no connection that is meant for this machine."""
    with socket.create_server(("127.0.0.1", 0)) as proxy, socket.create_server(("127.0.0.1", 0)) as service:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        address = f"127.0.0.1:{service.getsockname()[1]}"
        with open_channel(Service(address, ClientSettings.from_layers({}))) as channel:
            method: Any = channel.unary_unary("/any")
            call = method.future(b"")
            service.settimeout(10)
            connection, _ = service.accept()
            call.cancel()
            connection.close()
        proxy.settimeout(0)
        with pytest.raises(BlockingIOError):
            proxy.accept()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    with folder_for_all() as folder:
        yield folder


def test_a_socket_that_the_user_may_not_write_to(folder: Path) -> None:
    """An error tells a lack of permission from the lack of a service, with what the socket is and who asks."""
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(path))
        path.chmod(0o600 if os.geteuid() == 0 else 0)
        service.listen()
        owner, group, mode = os.geteuid(), os.getegid(), "srw-------" if os.geteuid() == 0 else "s---------"
        with as_another_user():
            assert unreachable(f"unix:{path}") == (
                f"unix:{path} can't be connected to by user {os.geteuid()}: Permission denied; it is {mode} of user "
                f"{owner}, group {group}, which its service's SOCKET_MODE decides"
            )


def test_a_folder_that_the_user_may_not_enter(folder: Path) -> None:
    """A socket in a folder that may not be entered is not said to be without a service."""
    closed = folder / "closed"
    closed.mkdir()
    closed.chmod(0)
    with as_another_user():
        assert unreachable(f"unix:{closed}/s") == (
            f"unix:{closed}/s can't be reached: Permission denied, for one of its folders"
        )


def test_a_socket_without_a_service(tmp_path: Path) -> None:
    """A socket that is not there, and one whose service has gone, are a service that does not answer."""
    path = tmp_path / "s"
    elsewhere = "start one (otpmail serve, otpmail dev), or name another by --server, OTPMAIL_SERVER, or HOST and PORT"
    assert unreachable(f"unix:{path}") == f"no service answers on unix:{path}, where there is no socket; {elsewhere}"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    assert unreachable(f"unix:{path}") == f"no service answers on unix:{path}; {elsewhere}"
    assert unreachable("127.0.0.1:1") == f"no service answers on 127.0.0.1:1; {elsewhere}"
