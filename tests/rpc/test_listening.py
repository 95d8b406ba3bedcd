"""Every address of HOST is bound, or none, with the reason in one line. Real sockets, and gRPC's own binding."""

from __future__ import annotations

import os
import re
import socket
import stat
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc.aio
import pytest

from otpmail.errors import SettingsError
from otpmail.rpc.listening import Listening, listen
from otpmail.rpc.transport import server_options
from otpmail.settings import ServerSettings, is_present
from otpmail.settings.listen import ListenAddress
from users import as_another_user, folder_for_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

_with_ipv6 = pytest.mark.skipif(not is_present("::1"), reason="this machine has no ::1")
_ABSENT = "192.0.2.1"  # of TEST-NET-1 (RFC 5737): no machine has it


def _settings(host: str, **more: Any) -> ServerSettings:
    return ServerSettings.from_layers({"HOST": host, "PORT": "0", **more})


@pytest.fixture
async def add_port() -> AsyncIterator[Callable[[str], int]]:
    """The binding of gRPC itself, by a server that serves nothing."""
    server = grpc.aio.server(options=server_options(most_octets=2 << 20, connections=100))
    yield server.add_insecure_port
    await server.start()  # else it keeps its sockets
    await server.stop(0)


def _refusal(settings: ServerSettings, add_port: Callable[[str], int]) -> str:
    with pytest.raises(SettingsError) as caught:
        listen(settings, add_port)
    (line,) = caught.value.problems
    return line


def _not_asked(address: str) -> int:
    raise AssertionError(address)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _connect(family: socket.AddressFamily, host: str, port: int) -> tuple[str, int]:
    """Connect, and return whom the socket then names as its peer."""
    with socket.socket(family) as client:
        client.connect((host, port))
        return cast("tuple[str, int]", client.getpeername()[:2])


@_with_ipv6
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1,127.0.0.2,::1"])
async def test_one_port_on_all_addresses(host: str, add_port: Callable[[str], int]) -> None:
    """With PORT=0 one free port is taken, the same on each address."""
    settings = _settings(host)
    listening = listen(settings, add_port)
    assert len(listening.addresses) == len(settings.hosts)
    (port,) = set(map(_port, listening.addresses))
    for address in settings.hosts:
        _connect(socket.AF_INET6 if ":" in address.host else socket.AF_INET, address.host, port)


@_with_ipv6
async def test_a_port_that_is_free_on_one_address_only() -> None:
    """With PORT=0 a port that is taken on a later address is given up for another one."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        with pytest.MonkeyPatch.context() as patch:
            ports = chain((taken,), repeat(0))  # other programs may have a port of the next ones too
            bind = socket.socket.bind

            def first_taken(self: socket.socket, address: Any) -> None:
                if self.family == socket.AF_INET6 and address[1] == 0:
                    address = (address[0], next(ports))
                bind(self, address)

            patch.setattr(socket.socket, "bind", first_taken)
            listening = listen(_settings("::1,127.0.0.1"), _port)
    assert taken not in set(map(_port, listening.addresses))
    assert next(ports) == 0


@_with_ipv6
@pytest.mark.parametrize(
    ("host", "taken", "shown"),
    [
        ("localhost", "127.0.0.1", "127.0.0.1:{} (localhost)"),
        ("localhost", "::1", "[::1]:{} (localhost)"),
        ("::1,127.0.0.1", "127.0.0.1", "127.0.0.1:{}"),
        ("0.0.0.0", "127.0.0.1", "0.0.0.0:{}"),
        ("0.0.0.0", "::1", "0.0.0.0:{}"),
        ("::", "127.0.0.1", "[::]:{}"),
        ("127.0.0.1", "0.0.0.0", "127.0.0.1:{}"),
        ("::1", "::", "[::1]:{}"),
    ],
)
async def test_a_port_that_is_taken_on_one_address(
    host: str, taken: str, shown: str, add_port: Callable[[str], int]
) -> None:
    """A server on any one of the addresses, or on all of this machine, is an error, and nothing is bound."""
    with socket.create_server((taken, 0), family=socket.AF_INET6 if ":" in taken else socket.AF_INET) as other:
        port = other.getsockname()[1]
        line = _refusal(_settings(host, PORT=str(port), ALLOW_ANONYMOUS="true"), add_port)
        assert line == (
            f"PORT: can't listen on {shown.format(port)}; another server is there, perhaps an otpmail that still runs: "
            "stop it, or set another PORT (0: any that is free)"
        )
        free = "127.0.0.1" if taken == "::1" else "::1"
        if taken not in {"0.0.0.0", "::"}:
            with pytest.raises(ConnectionRefusedError):
                _connect(socket.AF_INET6 if ":" in free else socket.AF_INET, free, port)


@_with_ipv6
@pytest.mark.parametrize("host", ["*", "0.0.0.0", "::"])
async def test_a_wildcard_takes_both_families(host: str, add_port: Callable[[str], int]) -> None:
    """Either wildcard listens for IPv4 and IPv6."""
    (address,) = listen(_settings(host, ALLOW_ANONYMOUS="true"), add_port).addresses
    port = _port(address)
    assert _connect(socket.AF_INET, "127.0.0.1", port) == ("127.0.0.1", port)
    assert _connect(socket.AF_INET6, "::1", port) == ("::1", port)


def _ports_are_privileged() -> bool:
    start = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    return start.exists() and int(start.read_text()) > 1


@pytest.mark.skipif(not _ports_are_privileged(), reason="this system has no privileged ports")
def test_a_port_that_needs_privileges() -> None:
    """A port below 1024 that the system keeps for root is refused with that reason."""
    with as_another_user():
        line = _refusal(_settings("127.0.0.1", PORT="1"), _not_asked)
    assert line == "PORT: can't listen on 127.0.0.1:1; ports below 1024 need privileges"


async def test_an_address_of_a_name_that_is_absent(add_port: Callable[[str], int]) -> None:
    """An address that a name stands for, and that this machine lacks, is passed over and told."""
    hosts = ListenAddress("127.0.0.1", "two.example"), ListenAddress(_ABSENT, "two.example")
    listening = listen(_settings("localhost").model_copy(update={"hosts": hosts}), add_port)
    (address,) = listening.addresses
    assert listening == Listening((address,), (f"{_ABSENT}:{_port(address)}",))


async def test_an_address_that_is_absent(add_port: Callable[[str], int]) -> None:
    """An address that HOST itself names, or the last one of a name, has to be there."""
    named = ListenAddress(_ABSENT, "one.example"), ListenAddress("127.0.0.1", "localhost")
    for hosts, shown in (
        ((ListenAddress("127.0.0.1"), ListenAddress(_ABSENT)), r"192\.0\.2\.1:\d+"),
        (named, r"192\.0\.2\.1:\d+ \(one\.example\)"),
    ):
        line = _refusal(_settings("localhost").model_copy(update={"hosts": hosts}), add_port)
        assert re.fullmatch(rf"HOST: can't listen on {shown}; this machine does not have it", line)


@pytest.mark.parametrize(("mode", "umask"), [("0660", 0o077), ("0600", 0o000), ("0777", 0o027)])
def test_the_mode_of_a_socket_from_its_first_moment(tmp_path: Path, mode: str, umask: int) -> None:
    """A socket has SOCKET_MODE as soon as it exists, whatever the umask, which is then as before."""
    path = tmp_path / "s"
    seen: list[int] = []

    def bind(address: str) -> int:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(address.removeprefix("unix:"))
            seen.append(stat.S_IMODE(path.stat().st_mode))
        return 1

    before = os.umask(umask)
    try:
        listen(_settings(f"unix:{path}", SOCKET_MODE=mode), bind)
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert seen == [int(mode, 8)]


async def test_the_mode_of_grpcs_socket(tmp_path: Path, add_port: Callable[[str], int]) -> None:
    """The socket that gRPC makes has SOCKET_MODE too; without it the umask decides."""
    before = os.umask(0o027)
    try:
        listen(_settings(f"unix:{tmp_path}/s", SOCKET_MODE="0660"), add_port)
        listen(_settings(f"unix:{tmp_path}/t"), add_port)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660
    assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o750


async def test_no_socket_is_left_where_a_later_address_fails(tmp_path: Path, add_port: Callable[[str], int]) -> None:
    """Where gRPC fails after it made a Unix socket, that is removed."""

    def fail_for_tcp(address: str) -> int:
        if not address.startswith("unix:"):
            raise RuntimeError("by gRPC")
        return add_port(address)

    line = _refusal(_settings(f"unix:{tmp_path}/s,localhost"), fail_for_tcp)
    assert line.startswith("PORT: can't listen on 127.0.0.1:")
    assert not (tmp_path / "s").exists()


async def test_a_socket_that_was_left_behind(tmp_path: Path, add_port: Callable[[str], int]) -> None:
    """A socket whose process has gone is replaced."""
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(f"{tmp_path}/s")
    assert listen(_settings(f"unix:{tmp_path}/s"), add_port).addresses == (f"unix:{tmp_path}/s",)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/s")


@pytest.mark.parametrize("name", ["a b", "a%20b", "a%b", "a?b#c", "é", "\udce9", "[a]:1"])
async def test_a_path_is_taken_as_it_stands(tmp_path: Path, add_port: Callable[[str], int], name: str) -> None:
    """The socket has the very name that HOST says, whatever a URL would mean by it."""
    address = f"unix:{tmp_path}/{name}"
    assert listen(_settings(address), add_port).addresses == (address,)
    assert (tmp_path / name).is_socket()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("full", [False, True])
async def test_a_socket_that_is_in_use(
    tmp_path: Path, add_port: Callable[[str], int], kind: socket.SocketKind, *, full: bool
) -> None:
    """A socket of another process is left alone, also where its backlog is full or it is of another kind."""
    with socket.socket(socket.AF_UNIX, kind) as other, socket.socket(socket.AF_UNIX, kind) as first:
        other.bind(f"{tmp_path}/s")
        if kind is socket.SOCK_STREAM:
            other.listen(0)
        if full:
            first.connect(f"{tmp_path}/s")
        line = _refusal(_settings(f"unix:{tmp_path}/s"), add_port)
    assert (
        line == f"HOST: can't listen on unix:{tmp_path}/s; another server is there, perhaps an otpmail that still runs"
    )
    assert (tmp_path / "s").is_socket()


async def test_a_path_where_no_socket_can_be(tmp_path: Path, add_port: Callable[[str], int]) -> None:
    """A file that is no socket is left alone; a folder has to exist."""
    (tmp_path / "file").write_text("mine")
    for path, why in {
        tmp_path / "file": "a file is there that is no socket",
        tmp_path: "a file is there that is no socket",
        tmp_path / "none" / "s": f"there is no folder {tmp_path}/none",
        tmp_path / "file" / "s": f"there is no folder {tmp_path}/file",
    }.items():
        assert _refusal(_settings(f"unix:{path}"), add_port) == f"HOST: can't listen on unix:{path}; {why}"
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    with folder_for_all() as folder:
        yield folder


def test_a_folder_that_may_not_be_written_to(folder: Path) -> None:
    """The line names the folder in which the user may not make a socket, or which it may not enter."""
    (folder / "closed").mkdir()
    (folder / "closed").chmod(0)
    folder.chmod(0o555)
    with as_another_user():
        line = _refusal(_settings(f"unix:{folder}/s"), _not_asked)
        assert line == f"HOST: can't listen on unix:{folder}/s; this user may not make a socket in {folder}"
        line = _refusal(_settings(f"unix:{folder}/closed/s"), _not_asked)
        assert line.startswith(f"HOST: can't listen on unix:{folder}/closed/s; ")
        assert "Permission denied" in line


def test_a_socket_that_another_user_keeps(folder: Path) -> None:
    """A socket that the user may not connect to is not taken for one that was left behind."""
    folder.chmod(0o777)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{folder}/s")
        (folder / "s").chmod(0)
        other.listen()
        with as_another_user():
            line = _refusal(_settings(f"unix:{folder}/s"), _not_asked)
    assert line.endswith("; a socket is there that this user may not connect to")
    assert (folder / "s").is_socket()
