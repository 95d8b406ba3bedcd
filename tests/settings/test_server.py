"""The service's own settings: where it may listen."""

import socket

import pytest

from otpmail.settings import is_loopback
from settings.conftest import Load, Problems


@pytest.mark.parametrize(
    ("host", "address"),
    [("", "127.0.0.1:40700"), ("::1", "[::1]:40700"), ("[::1]", "[::1]:40700"), ("unix:/run/x", "unix:/run/x")],
)
def test_loopback_and_unix_sockets(load: Load, host: str, address: str) -> None:
    """The service listens on loopback or a Unix socket without any other setting."""
    assert load(HOST=host).server.address == address


@pytest.fixture
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve names without a network: here.example is one, and nothing else is."""

    def resolve(host: str, port: None) -> list[str]:
        assert port is None
        if host == "here.example":
            return ["an address"]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.usefixtures("_names")
@pytest.mark.parametrize("anonymous", ["false", "true"])
@pytest.mark.parametrize("host", ["nonsense", "127.0.0.1:40700", "a\nb", "[::1]:40700", "http://here.example"])
def test_a_host_that_can_not_be_resolved(problems: Problems, host: str, anonymous: str) -> None:
    """A HOST that is neither an address nor a known name is wrong, and ALLOW_ANONYMOUS does not change that."""
    rule = "is neither an IP address, nor unix:PATH, nor a name that can be resolved here"
    assert problems(HOST=host, ALLOW_ANONYMOUS=anonymous) == (f"HOST: {host!r} is wrong: {rule}",)


@pytest.mark.usefixtures("_names")
def test_a_name_to_listen_on(load: Load, problems: Problems) -> None:
    """A name that can be resolved is an address like others: strangers may reach it."""
    assert load(HOST="here.example", ALLOW_ANONYMOUS="true").server.address == "here.example:40700"
    (line,) = problems(HOST="here.example", ALLOW_ANONYMOUS="false")
    assert line.startswith("HOST: here.example can be reached by strangers")


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
