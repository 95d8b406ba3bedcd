"""Starts the servers of a benchmark: the relay, `otpmail serve`, and the peers beside it."""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import trustme

from benchmarks.processes import Process
from benchmarks.smtp_client import PASSWORD, USER

SENDER = "codes@example.org"
CONNECTIONS = 5  # of a pool: as many as WORKERS ships with
AS_SHIPPED = "as shipped"

KEYS = f"k1:{base64.b64encode(bytes(range(32))).decode()}"
"""OTP_KEYS, without which no durable store opens."""

_REACHABLE: dict[str, object] = {"HOST": "127.0.0.1", "PORT": 0, "LOG_FORMAT": "json"}  # so that we can read where


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
    """A running benchmark relay; its `counts` are known once it has ended."""

    def __init__(self, process: Process, port: int, certificates: Certificates) -> None:
        self._process = process
        self.port = port
        self.ca_file = certificates.ca_file
        self.counts: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Relay 127.0.0.1:{self.port}>"

    @property
    def cpu(self) -> float:
        """The processor time used so far, in seconds."""
        return self._process.cpu

    @property
    def arguments(self) -> tuple[object, ...]:
        """The arguments with which our programs connect to it."""
        return "--port", self.port, "--ca-file", self.ca_file

    @property
    def environment(self) -> dict[str, object]:
        """The settings with which the service connects to it, and no other."""
        return {
            "EMAIL_HOST": "127.0.0.1",
            "EMAIL_PORT": self.port,
            "EMAIL_SECURITY": "tls",
            "EMAIL_CA_FILE": self.ca_file,
            "EMAIL": USER,
            "APP_PASSWORD": PASSWORD,
            "EMAIL_FROM": SENDER,
        }

    async def stop(self) -> None:
        """Stop it, and read its counts."""
        self._process.terminate()
        self.counts = await self._process.line(mails=...)

    def assert_took(self, mails: int) -> None:
        """Fail unless the relay took so many mails, each once, and saw no error of the client."""
        counts = self.counts
        assert counts["errors"] == 0, counts["first_error"]
        assert counts["mails"] == counts["message_ids"] == mails


@dataclass(frozen=True, slots=True)
class Server:
    """A gRPC server with mail.MailService. `settings` says which settings differ from those that ship.

    Its callers send the `token`, if there is one. With HTTP_PORT it serves HTTP at the address `http`.
    """

    process: Process
    address: str
    settings: str = ""
    token: str = ""
    http: str = ""


def describe(changed: Mapping[str, object]) -> str:
    """The settings that a benchmark changes, for the rows of its table."""
    return " ".join(f"{name}={value}" for name, value in changed.items()) or AS_SHIPPED


@asynccontextmanager
async def relay(certificates: Certificates, *arguments: object) -> AsyncIterator[Relay]:
    """Start a relay with these arguments; it is stopped, and its counts are known, after the block."""
    async with Process("benchmarks.peers.relay", "--certificate", certificates.server, *arguments) as process:
        running = Relay(process, (await process.line(port=...))["port"], certificates)
        yield running
        if not running.counts:
            await running.stop()


@asynccontextmanager
async def service(relay: Relay, **changed: object) -> AsyncIterator[Server]:
    """Start `otpmail serve` with the settings that ship, but for these, and wait until it is connected."""
    environment = _REACHABLE | relay.environment | changed
    async with Process("otpmail", "serve", **environment) as process:
        yield await _connected(process, changed)


@asynccontextmanager
async def adjusted_service(relay: Relay, *arguments: object, **changed: object) -> AsyncIterator[Server]:
    """Start the service by `benchmarks.peers.otpmail_service`, with these arguments of that program."""
    environment = _REACHABLE | relay.environment | changed
    async with Process("benchmarks.peers.otpmail_service", *arguments, **environment) as process:
        yield await _connected(process, changed)


@asynccontextmanager
async def starting_service(relay: Relay, **changed: object) -> AsyncIterator[Process]:
    """Start `otpmail serve` with the settings that ship, but for these, and wait for nothing."""
    async with Process("otpmail", "serve", **(_REACHABLE | relay.environment | changed)) as process:
        yield process


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A running server of Redis."""

    process: Process
    port: int

    @property
    def url(self) -> str:
        """The value of STORE_URL that leads to it."""
        return f"redis://127.0.0.1:{self.port}"


@asynccontextmanager
async def redis_server() -> AsyncIterator[RedisServer]:
    """Start a server of Redis with an append-only file, and return once it answers."""
    async with Process("benchmarks.peers.redis_server") as process:
        port = (await process.line(port=...))["port"]
        async with asyncio.timeout(30):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    break
        yield RedisServer(process, port)


async def _connected(process: Process, changed: Mapping[str, object]) -> Server:
    http = ""
    if "HTTP_PORT" in changed:
        http = urlsplit((await process.line(event="metrics"))["url"]).netloc
    address = (await process.line(event="listening"))["address"]
    await process.line(event="relay-up")
    return Server(process, address, describe(changed), http=http)


@asynccontextmanager
async def aiosmtplib_pool(relay: Relay, connections: int = CONNECTIONS) -> AsyncIterator[Server]:
    """Start a gRPC server with a pool of aiosmtplib's connections, all of them open and signed in."""
    arguments = (*relay.arguments, "--connections", connections)
    async with Process("benchmarks.peers.aiosmtplib_pool", *arguments) as process:
        yield Server(process, (await process.line(address=...))["address"])


@asynccontextmanager
async def aiosmtplib_connect(relay: Relay, limit: int) -> AsyncIterator[Server]:
    """Start a gRPC server that opens an aiosmtplib connection for each mail, at most `limit` at a time."""
    async with Process("benchmarks.peers.aiosmtplib_connect", *relay.arguments, "--limit", limit) as process:
        yield Server(process, (await process.line(address=...))["address"])


@asynccontextmanager
async def echo(round_trip_ms: float, *arguments: object) -> AsyncIterator[Server]:
    """Start the gRPC server that sends nothing, and answers after a round trip."""
    async with Process("benchmarks.peers.echo", "--rtt", round_trip_ms, *arguments) as process:
        yield Server(process, (await process.line(address=...))["address"])


@asynccontextmanager
async def service_of_processes(certificates: Certificates, processes: int, *, workers: int) -> AsyncIterator[Server]:
    """Start a service of so many processes, with a relay and a store of its own, and wait until all of them serve."""
    settings = {"PROCESSES": processes, "WORKERS": workers, "OTP_KEYS": KEYS}
    async with (
        redis_server() as redis,
        relay(certificates) as at,
        service(at, **settings, STORE_URL=redis.url) as server,
    ):
        for _ in range(processes - 1):
            await server.process.line(event="relay-up")
        yield server
