"""Puts load on a server: starts the programs that make calls, and joins the figures of several as those of one."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.load.h2load import CONNECTIONS
from benchmarks.peers.servers import Server
from benchmarks.processes import Process, run

NO_H2LOAD = "skipped without h2load (Debian's package nghttp2-client): SendMail"

_PROCESSES = 2  # of callers in Python, so that no single one is the limit
_APART = 10_000_000  # between the numbers of two processes' calls


def has_h2load() -> bool:
    """Whether h2load is installed."""
    return shutil.which("h2load") is not None


async def send_mails(
    server: Server,
    *,
    callers: int = 64,
    warm: float,
    seconds: float,
    guaranteed_octets: int = 0,
    connections: int = CONNECTIONS,
) -> dict[str, float]:
    """Let h2load call SendMail with so many calls in flight, over so many connections; see `benchmarks.load.h2load`.

    With `guaranteed_octets` the mails have that size, and their callers wait for the queue.

    Besides the rate and percentiles, returns `calls`, those of warming up included. `cpu` is h2load's processor time
    for them in seconds, `cores` how many it kept busy, and `server_cpu` the server's processor time.
    """
    before = server.process.cpu
    arguments: tuple[object, ...] = ("--address", server.address, "--callers", callers, "--warm", warm)
    arguments = (*arguments, "--seconds", seconds, "--connections", connections, *_token_of(server))
    if guaranteed_octets:
        arguments = (*arguments, "--wait-for-queue", "--octets", guaranteed_octets)
    return await run("benchmarks.load.h2load", *arguments) | {"server_cpu": server.process.cpu - before}


async def call(
    server: Server,
    method: str,
    *,
    callers: int = 64,
    warm: float,
    seconds: float,
    first: int = 0,
    codes: tuple[Path, int] | None = None,
) -> dict[str, float]:
    """Let callers in two Python processes call for that long; the figures are those of `send_mails`.

    `codes` is a file of codes to validate and how many of them, from number `first` on. Of the processes' p99 it
    returns the worse one.
    """
    before = server.process.cpu
    share = codes[1] // _PROCESSES if codes else 0
    arguments: tuple[object, ...] = ("--address", server.address, "--method", method)
    arguments = (*arguments, "--callers", callers // _PROCESSES, *_token_of(server))
    limits: list[tuple[object, ...]] = [
        ("--first", first + place * share, "--calls", share, "--codes", codes[0])
        if codes
        else ("--first", first + place * _APART)
        for place in range(_PROCESSES)
    ]
    parts = await asyncio.gather(
        *(
            run("benchmarks.load.closed_loop", *arguments, "--warm", warm, "--seconds", seconds, *limit)
            for limit in limits
        )
    )
    return _join(parts) | {"server_cpu": server.process.cpu - before}


async def take_turns(servers: Sequence[Server], *, turns: int, calls: int) -> list[dict[str, list[dict[str, float]]]]:
    """Call the servers by turns, and return what each of their turns took, by method (`benchmarks.load.by_turns`)."""
    done = await run(
        "benchmarks.load.by_turns",
        *("--addresses", *(server.address for server in servers)),
        *("--pids", *(server.process.pid for server in servers)),
        *("--tokens", *(server.token for server in servers)),
        *("--turns", turns, "--calls", calls),
    )
    figures: list[dict[str, list[dict[str, float]]]] = done["services"]
    return figures


async def offer(
    server: Server, method: str, *, rate: float, seconds: float, first: int
) -> tuple[list[float], dict[str, float]]:
    """Start so many calls a second, by the clock; `first` is the number of the first one, and the seed.

    `load.open_loop_mails` calls SendMail, and two processes of `load.open_loop` call the other methods.
    Returns how long each call took, in milliseconds and in order of length, and the other figures.
    """
    before = server.process.cpu
    arguments: tuple[object, ...] = ("--address", server.address, "--seconds", seconds)
    if method == "SendMail":
        parts = [await run("benchmarks.load.open_loop_mails", *arguments, "--rate", rate, "--seed", first)]
    else:
        arguments = (*arguments, "--method", method, "--rate", rate / _PROCESSES)
        parts = await asyncio.gather(
            *(
                run("benchmarks.load.open_loop", *arguments, "--first", first + place * _APART, "--seed", first + place)
                for place in range(_PROCESSES)
            )
        )
    took = sorted(us / 1000 for part in parts for us in part["took_us"])
    figures = {name: sum(part[name] for part in parts) for name in ("calls", "rate", "cores")}
    figures |= {"late_ms": max(part["late_ms"] for part in parts), "server_cpu": server.process.cpu - before}
    return took, figures


async def highest_rate(server: Server, method: str, *, warm: float, seconds: float) -> tuple[float, float]:
    """The rate with 64 calls in flight, and how many calls that made: of SendMail by h2load where it is installed."""
    if method == "SendMail" and has_h2load():
        measured = await send_mails(server, warm=warm, seconds=seconds)
    else:
        measured = await call(server, method, warm=warm, seconds=seconds)
    return measured["rate"], measured["calls"]


def percentile(took: list[float], part: float) -> float:
    """A percentile of times that are in order."""
    return took[min(len(took) - 1, int(len(took) * part))]


async def issue(server: Server, count: int, file: Path, *, first: int = 0) -> None:
    """Have so many codes mailed, numbered from the `first`, and write them into `file`, each in that place."""
    arguments = ("--address", server.address, "--first", first, "--count", count, "--file", file, *_token_of(server))
    async with Process("benchmarks.load.issue_codes", *arguments) as process:
        await process.line(issued=count)


async def send_batches(
    server: Server, *, name: str, batch: int, warm: float, seconds: float, guaranteed: bool = False
) -> dict[str, float]:
    """Send mails in batches over `SendMails` from two processes; `calls` counts mails, and `rate` is of mails."""
    before = server.process.cpu
    arguments: tuple[object, ...] = ("--address", server.address, "--batch", batch, "--warm", warm)
    arguments = (*arguments, "--seconds", seconds, *(("--wait-for-queue",) if guaranteed else ()))
    parts = await asyncio.gather(
        *(run("benchmarks.load.batches", *arguments, "--name", f"{name}-{place}") for place in range(_PROCESSES))
    )
    return _join(parts) | {"server_cpu": server.process.cpu - before}


def _token_of(server: Server) -> tuple[str, ...]:
    return ("--token", server.token) if server.token else ()


def _join(parts: list[dict[str, Any]]) -> dict[str, float]:
    """The figures of several processes as those of one."""
    sums = {name: sum(part[name] for part in parts) for name in ("calls", "rate", "cpu", "cores")}
    middle = sum(part["p50_ms"] * part["calls"] for part in parts) / sums["calls"]
    return sums | {"p50_ms": middle, "p99_ms": max(part["p99_ms"] for part in parts)}
