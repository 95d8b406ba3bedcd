"""The processes of a benchmark: everything that is measured, or measures, has one of its own and speaks JSON lines."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trustme

import otpmail
from benchmarks.memory import resident
from benchmarks.wire import PASSWORD, USER

SENDER = "codes@example.org"
CONNECTIONS = 5

_PATH = os.pathsep.join(str(path) for path in (Path(otpmail.__file__).parents[1], Path(__file__).parents[1]))
_LONGEST_LINE = 1 << 20
_PATIENCE_SECONDS = 240  # the longest measurement takes a quarter of that


class Process:
    """`python -m` a module, in an empty directory and with nothing in its environment but what is given."""

    def __init__(self, module: str, *arguments: object, **environment: object) -> None:
        self._command = ("-m", module, *map(str, arguments))
        self._environment = {name: str(value) for name, value in environment.items()}
        self._directory = tempfile.TemporaryDirectory(prefix="otpmail-benchmark-")
        self._process: asyncio.subprocess.Process | None = None
        self._said: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._output: list[str] = []  # what is no JSON: a traceback, as a rule
        self._reader: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Process {self._command[1]} pid={self._process.pid if self._process else None}>"

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._command,
            cwd=self._directory.name,
            env={"PATH": os.defpath, "HOME": self._directory.name, "PYTHONPATH": _PATH, **self._environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LONGEST_LINE,
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._reader is not None
        if not self._reader.done():  # else it has ended, and is to be waited for alone
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        await self._reader
        self._directory.cleanup()

    async def said(self, **wanted: object) -> dict[str, Any]:
        """The next line with these fields; a field wanted as `...` may hold anything.

        Raises RuntimeError, with all it wrote, when the process ends without, or has not said it after some minutes.
        """
        how = "ended"
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while (line := await self._said.get()) is not None:
                    if all(name in line and value in (..., line[name]) for name, value in wanted.items()):
                        return line
                    self._output.append(json.dumps(line))
        except TimeoutError:
            how = f"has not said {wanted or 'anything'} in {_PATIENCE_SECONDS} s"
        raise RuntimeError(f"{self!r} {how}:\n" + "\n".join(self._output))

    def terminate(self) -> None:
        """Ask it to end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    @property
    def cpu(self) -> float:
        """The processor time it has used so far, in seconds; 0 where the system does not tell."""
        assert self._process is not None
        if sys.platform != "linux":
            return 0.0
        return time.clock_gettime(~self._process.pid << 3 | 2)  # clock_getcpuclockid(3), which Python does not offer

    @property
    def resident(self) -> int:
        """The memory it has resident, in bytes; 0 where the system does not tell."""
        assert self._process is not None
        return resident(self._process.pid)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            text = raw.decode("utf-8", "backslashreplace").rstrip()
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                self._output.append(text)
            else:
                self._said.put_nowait(line)
        self._said.put_nowait(None)


async def run(module: str, *arguments: object, **environment: object) -> dict[str, Any]:
    """Run a program that prints its result as one line, and return that."""
    async with Process(module, *arguments, **environment) as process:
        return await process.said()


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files: the authority that clients trust, and the relay's key and chain."""

    ca_file: Path
    server: Path

    @classmethod
    def make(cls, directory: Path) -> Self:
        """Write both into `directory`."""
        authority = trustme.CA()
        files = cls(directory / "ca.pem", directory / "server.pem")
        authority.cert_pem.write_to_path(str(files.ca_file))
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(files.server))
        return files


class Relay:
    """The benchmark relay at work; `counts` are there once it has ended."""

    def __init__(self, process: Process, port: int, certificates: Certificates) -> None:
        self._process = process
        self.port = port
        self.ca_file = certificates.ca_file
        self.counts: dict[str, Any] = {}

    @property
    def cpu(self) -> float:
        """The processor time it has used so far, in seconds."""
        return self._process.cpu

    @property
    def reach(self) -> tuple[object, ...]:
        """The arguments with which our programs reach it."""
        return "--port", self.port, "--ca-file", self.ca_file

    @property
    def settings(self) -> dict[str, object]:
        """The settings with which the service reaches it; its connections are never worn out, as the pool's are not."""
        return {
            "EMAIL_HOST": "127.0.0.1",
            "EMAIL_PORT": self.port,
            "EMAIL_SECURITY": "tls",
            "EMAIL_CA_FILE": self.ca_file,
            "EMAIL": USER,
            "APP_PASSWORD": PASSWORD,
            "EMAIL_FROM": SENDER,
            "EMAIL_MAX_MESSAGES": 1_000_000_000,
        }

    async def stop(self) -> None:
        """End it, for its counts."""
        self._process.terminate()
        self.counts = await self._process.said(mails=...)

    def assert_took(self, mails: int) -> None:
        """Hold it to have seen so many mails, each once, and no error of the client's."""
        counts = self.counts
        assert counts["errors"] == 0, counts["first_error"]
        assert counts["mails"] == counts["message_ids"] == mails


@asynccontextmanager
async def relay(certificates: Certificates, *arguments: object) -> AsyncIterator[Relay]:
    """Start a relay with these arguments; it is stopped, and has its counts, behind the block."""
    async with Process("benchmarks.relay", "--certificate", certificates.server, *arguments) as process:
        running = Relay(process, (await process.said(port=...))["port"], certificates)
        yield running
        if not running.counts:
            await running.stop()


@dataclass(frozen=True, slots=True)
class Server:
    """A gRPC server with mail.MailService, which sends to a relay."""

    process: Process
    address: str


@asynccontextmanager
async def service(relay: Relay, **settings: object) -> AsyncIterator[Server]:
    """Start `otpmail serve`, connected to the relay."""
    environment = {"HOST": "127.0.0.1", "PORT": 0, "LOG_FORMAT": "json", "WORKERS": CONNECTIONS}
    async with Process("otpmail", "serve", **(environment | relay.settings | settings)) as process:
        address = (await process.said(event="listening"))["address"]
        await process.said(event="relay-up")
        yield Server(process, address)


@asynccontextmanager
async def aiosmtplib_pool(relay: Relay, connections: int = CONNECTIONS) -> AsyncIterator[Server]:
    """Start the peer: a gRPC server with a pool of aiosmtplib's connections, all of them open and signed in."""
    arguments = (*relay.reach, "--connections", connections)
    async with Process("benchmarks.peers.aiosmtplib_pool", *arguments) as process:
        yield Server(process, (await process.said(address=...))["address"])


@asynccontextmanager
async def aiosmtplib_connect(relay: Relay, at_once: int) -> AsyncIterator[Server]:
    """Start the other peer: a gRPC server with an aiosmtplib connection for each mail, so many at a time."""
    async with Process("benchmarks.peers.aiosmtplib_connect", *relay.reach, "--at-once", at_once) as process:
        yield Server(process, (await process.said(address=...))["address"])


@asynccontextmanager
async def echo(round_trip_ms: float, *arguments: object) -> AsyncIterator[Server]:
    """Start the gRPC server that sends nothing, and answers after a round trip."""
    async with Process("benchmarks.peers.echo", "--rtt", round_trip_ms, *arguments) as process:
        yield Server(process, (await process.said(address=...))["address"])
