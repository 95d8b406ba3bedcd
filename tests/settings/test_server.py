"""The service's own settings: where it may listen."""

import socket
from typing import Any

import pytest

from otpmail.settings import is_loopback
from settings.conftest import Load, Problems


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("", ("127.0.0.1:40700", "[::1]:40700")),
        ("127.0.0.1", ("127.0.0.1:40700",)),
        ("[::1]", ("[::1]:40700",)),
        ("unix:/run/x,localhost", ("unix:/run/x", "127.0.0.1:40700", "[::1]:40700")),
    ],
)
def test_loopback_and_unix_sockets(load: Load, host: str, addresses: tuple[str, ...]) -> None:
    """The service listens on loopback or a Unix socket without any other setting; by default on both loopbacks."""
    server = load(HOST=host).server
    assert server.addresses == addresses
    assert server.address == addresses[0]


@pytest.fixture
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve names without a network: here.example is an address of the network, own.example is loopback."""

    def resolve(host: str, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        known = {"here.example": "10.0.0.1", "own.example": "127.0.1.1"}
        if host in known:
            return [(0, 0, 0, "", (known[host], 0))]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.usefixtures("_names")
@pytest.mark.parametrize("anonymous", ["false", "true"])
def test_a_host_that_can_not_be_resolved(problems: Problems, anonymous: str) -> None:
    """A HOST that is neither an address nor a known name is wrong, and ALLOW_ANONYMOUS does not change that."""
    rule = "is neither an IP address, nor unix:PATH, nor a name that can be resolved here"
    assert problems(HOST="nonsense", ALLOW_ANONYMOUS=anonymous) == (f"HOST: 'nonsense' {rule}",)


@pytest.mark.usefixtures("_names")
@pytest.mark.parametrize("host", ["localhost:40700", "[::1]:40700", "127.0.0.1:0", ":40700"])
def test_a_host_with_a_port(problems: Problems, host: str) -> None:
    """A port in HOST is an error that says where it goes."""
    assert problems(HOST=host) == (f"HOST: {host!r} names a port, which goes into PORT",)


@pytest.mark.usefixtures("_names")
def test_a_name_to_listen_on(load: Load, problems: Problems) -> None:
    """A name is as good as the addresses that it has now: strangers may reach it unless they are loopback."""
    assert load(HOST="here.example", ALLOW_ANONYMOUS="true").server.address == "10.0.0.1:40700"
    assert load(HOST="own.example", ALLOW_ANONYMOUS="false").server.address == "127.0.1.1:40700"
    (line,) = problems(HOST="own.example,here.example", ALLOW_ANONYMOUS="false")
    assert line.startswith("HOST: here.example (10.0.0.1) can be reached by strangers")


@pytest.mark.parametrize(("text", "mode"), [("0660", 0o660), ("660", 0o660), ("0o600", 0o600), ("0777", 0o777)])
def test_the_mode_of_a_socket(load: Load, text: str, mode: int) -> None:
    """SOCKET_MODE is in octal, as chmod takes it."""
    assert load(SOCKET_MODE=text).server.socket_mode == mode
    assert load(SOCKET_MODE="").server.socket_mode is None


@pytest.mark.parametrize("text", ["rw-rw----", "0888", "66", "01777", "-660", "0440"])
def test_a_wrong_mode_of_a_socket(problems: Problems, text: str) -> None:
    """A mode that is not octal, or lets nobody connect, is wrong."""
    (line,) = problems(SOCKET_MODE=text)
    assert line.startswith(f"SOCKET_MODE: {text!r} ")


def test_strangers_only_with_allow_anonymous(load: Load) -> None:
    """An address that strangers can reach needs ALLOW_ANONYMOUS."""
    assert load(HOST="0.0.0.0", ALLOW_ANONYMOUS="true").server.address == "0.0.0.0:40700"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "unix:/run/x")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.example.org", "127.0.0.1.nip.io", "")),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:  # noqa: FBT001
    """Only what can't be reached from another machine is loopback."""
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(("text", "host"), [("[::1]", "::1"), ("::1", "::1"), ("127.0.0.1", "127.0.0.1")])
def test_the_host_of_metrics_in_brackets(load: Load, text: str, host: str) -> None:
    """HTTP_HOST takes an IPv6 address in brackets too, as HOST does."""
    assert load(HTTP_HOST=text).server.http_host == host


@pytest.mark.parametrize(
    ("host", "http_host", "told"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("::1", "[::1]", "::1"),
        ("localhost", "localhost", "127.0.0.1"),
        ("::1", "LocalHost", "::1"),
        ("0.0.0.0", "::1", "0.0.0.0"),
        ("127.0.0.1", "0.0.0.0", "127.0.0.1"),
        ("unix:/run/x,127.0.0.1", "0.0.0.0", "127.0.0.1"),
    ],
)
def test_one_port_for_both_doors(problems: Problems, host: str, http_host: str, told: str) -> None:
    """HTTP_PORT may not be PORT where both would listen on one address: the problem names the two, and no other one."""
    settings = {"HOST": host, "HTTP_HOST": http_host, "ALLOW_ANONYMOUS": "true"}
    where = f"HTTP_PORT: is 40701, and so is PORT, where gRPC listens on {told}"
    assert list(problems(**settings, PORT="40701", HTTP_PORT="40701")) == [
        f"{where}; set another HTTP_PORT (0: any that is free)"
    ]


@pytest.mark.parametrize(
    ("host", "http_host", "port"),
    [
        ("127.0.0.1", "127.0.0.2", "40701"),
        ("127.0.0.1", "::1", "40701"),
        ("127.0.0.1", "::", "40701"),
        ("unix:/run/x", "127.0.0.1", "40701"),
        ("127.0.0.1", "127.0.0.1", "0"),
    ],
)
def test_one_port_on_other_addresses(load: Load, host: str, http_host: str, port: str) -> None:
    """HTTP_PORT may be PORT where no address has it twice, and where the system chooses both."""
    server = load(HOST=host, HTTP_HOST=http_host, PORT=port, HTTP_PORT=port, ALLOW_ANONYMOUS="true").server
    assert server.http_port == server.port == int(port)
