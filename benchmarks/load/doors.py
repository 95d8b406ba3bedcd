"""The same call by h2load over gRPC and over HTTP/1.1, in protobuf: a client in C, alike for both doors."""

import asyncio
import re
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import Message

from benchmarks.processes import Process

_DONE = re.compile(r"^finished in .*, ([\d.]+) req/s", re.MULTILINE)
_GOOD = re.compile(r"^requests: (\d+) total, .* (\d+) succeeded, (\d+) failed", re.MULTILINE)
_DATA = re.compile(r"^traffic: .*\((\d+)\) data$", re.MULTILINE)
_SECONDS = 120
_CONNECTIONS = 8


class Door(NamedTuple):
    """A way to call: the arguments of h2load for it, the start of its URLs, and whether a message is framed."""

    name: str
    url: str
    arguments: tuple[str, ...]
    framed: bool

    @classmethod
    def grpc(cls, address: str) -> "Door":
        """The door of gRPC, with eight calls in flight on each connection."""
        return cls(
            "gRPC",
            f"http://{address}",
            ("-m8", "-H", "content-type: application/grpc", "-H", "te: trailers"),
            framed=True,
        )

    @classmethod
    def http(cls, address: str, *, callers: int = 8 * _CONNECTIONS) -> "Door":
        """The door of HTTP, with one call in flight on each of as many connections as there are callers."""
        return cls(
            "HTTP", f"http://{address}", ("--h1", f"-c{callers}", "-H", "content-type: application/proto"), framed=False
        )


async def take(
    process: Process, door: Door, path: str, message: Message, *, calls: int, directory: Path
) -> dict[str, float]:
    """Make so many calls, 64 in flight; returns the rate, and the server's processor time of a call in microseconds.

    Raises RuntimeError where a call has no answer with a message.
    """
    octets = message.SerializeToString()
    body = directory / f"body-{door.name}"
    body.write_bytes(b"\0" + len(octets).to_bytes(4, "big") + octets if door.framed else octets)
    before = process.cpu
    running = await asyncio.create_subprocess_exec(
        "h2load",
        *(f"-n{calls}", f"-c{_CONNECTIONS}", *door.arguments, "-d", str(body), f"{door.url}{path}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(_SECONDS):
        output = (await running.communicate())[0].decode()
    done, good, data = _DONE.search(output), _GOOD.search(output), _DATA.search(output)
    if done is None or good is None or data is None or int(good[2]) != calls or int(data[1]) < calls:
        raise RuntimeError(f"h2load: calls were not answered\n{output}")
    return {"rate": float(done[1]), "us": (process.cpu - before) / calls * 1e6}
