"""HOST may hold addresses, names and Unix sockets."""

import re
import socket
from typing import Any

import pytest

from otpmail.settings.listen import ListenAddress, read_hosts

_KNOWN = {"one.example": ["10.0.0.1"], "two.example": ["10.0.0.1", "fd00::1"], "twice.example": ["10.0.0.1"] * 2}


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve names without a network: some of .example, and nothing else."""

    def resolve(host: str, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        if host not in _KNOWN:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", (address, 0)) for address in _KNOWN[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def _hosts(text: str) -> list[str]:
    return [address.host for address in read_hosts(text)]


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("localhost", ["127.0.0.1", "::1"]),
        ("LocalHost", ["127.0.0.1", "::1"]),
        ("::1, 127.0.0.1", ["::1", "127.0.0.1"]),
        ("[::1]", ["::1"]),
        ("0:0:0:0:0:0:0:1", ["::1"]),
        ("::ffff:127.0.0.1", ["127.0.0.1"]),
        ("fe80::1%lo", ["fe80::1%lo"]),
        ("fe80::1%1", ["fe80::1%1"]),
        ("two.example", ["10.0.0.1", "fd00::1"]),
        ("127.0.0.1,unix:/run/s,", ["127.0.0.1", "unix:/run/s"]),
        ("unix:s", ["unix:s"]),
        ("unix:///run/s", ["unix:/run/s"]),
        ("unix:s,unix:./s,unix:t", ["unix:./s", "unix:t"]),
    ],
)
def test_addresses_in_their_order(text: str, hosts: list[str]) -> None:
    """HOST is a list with commas; names stand for all of their addresses, and localhost for both of RFC 6761."""
    assert _hosts(text) == hosts


@pytest.mark.parametrize("text", ["127.0.0.1,127.0.0.1", "127.0.0.1,::ffff:127.0.0.1", "127.0.0.1,[127.0.0.1]"])
def test_the_same_address_twice(text: str) -> None:
    """An address that is named in two ways is bound once."""
    assert _hosts(text) == ["127.0.0.1"]


def test_an_address_and_a_name_of_it() -> None:
    """An address that is named by itself must be there, also where a name stands for it too."""
    assert read_hosts("localhost,::1") == (ListenAddress("127.0.0.1", "localhost"), ListenAddress("::1"))
    assert read_hosts("::1,localhost") == (ListenAddress("::1"), ListenAddress("127.0.0.1", "localhost"))


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("*", ["0.0.0.0"]),
        ("0.0.0.0,::", ["0.0.0.0"]),
        ("127.0.0.1,::,unix:s,one.example", ["::", "unix:s"]),
        ("unix:s,::1,0.0.0.0", ["unix:s", "0.0.0.0"]),
    ],
)
def test_a_wildcard_covers_the_other_addresses(text: str, hosts: list[str]) -> None:
    """A wildcard takes the place of all IP addresses beside it, which could not be bound as well."""
    assert _hosts(text) == hosts


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (",", "names no address"),
        ("unix:", "names no path"),
        ("unix://run/s", "must be unix:PATH or unix:///PATH"),
        (f"unix:{'é' * 54}", "is too long: the path of a Unix socket has at most 107 octets, this has 108"),
        *((f"fe80::1%{scope}", "names no network interface of this machine") for scope in ("no-such", "é", "\ud800")),
        ("fe80::1", "needs the name of its network interface, as in fe80::1%eth0"),
        *(
            (text, "is neither an IP address, nor unix:PATH, nor a name that can be resolved here")
            for text in ("nonsense", "a\nb", "http://one.example", "unix-abstract:s")
        ),
        *((text, "names a port, which goes into PORT") for text in ("127.0.0.1:40700", "[::1]:40700", "a.example:1")),
        ("127.0.0.1,nonsense", "'nonsense' is neither an IP address, nor unix:PATH, nor a name that can be resolved"),
        ("127.0.0.1,unix:", "'unix:' names no path"),
    ],
)
def test_no_place_to_listen(text: str, why: str) -> None:
    """An entry that is no place to listen is refused, and named where there are several."""
    with pytest.raises(ValueError, match=f"^{re.escape(why)}"):
        read_hosts(text)


def test_the_longest_path_of_a_socket() -> None:
    """A Unix socket's path may have 107 octets, as many as unix(7) leaves."""
    assert _hosts(f"unix:{'x' * 107}") == [f"unix:{'x' * 107}"]
