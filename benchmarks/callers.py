"""Callers in several processes, so that no single one of them is the limit, and their figures as those of one."""

import asyncio
from pathlib import Path
from typing import Any

from benchmarks.processes import Process, Server, run

PROCESSES = 2
_APART = 10_000_000  # between the numbers of two processes' calls


async def take_load(
    server: Server,
    method: str = "SendMail",
    *,
    callers: int = 64,
    warm: float,
    seconds: float,
    first: int = 0,
    codes: tuple[Path, int] | None = None,
) -> dict[str, float]:
    """Let callers in two processes keep calling for that long, and return what they saw.

    `codes` is a file of codes to validate and how many of them, from number `first` on. The rate, `calls`, `cpu`
    (seconds of the callers' processors) and `cores` (as many as that kept busy) are sums; of the processes' p99 it is
    the worse one. `server_cpu` is what the server used meanwhile.
    """
    server_before = server.process.cpu
    share = codes[1] // PROCESSES if codes else 0
    arguments = ("--address", server.address, "--method", method, "--callers", callers // PROCESSES)
    limits: list[tuple[object, ...]] = [
        ("--first", first + place * share, "--calls", share, "--codes", codes[0])
        if codes
        else ("--first", first + place * _APART)
        for place in range(PROCESSES)
    ]
    ones = await asyncio.gather(
        *(run("benchmarks.load", *arguments, "--warm", warm, "--seconds", seconds, *limit) for limit in limits)
    )
    return combine(ones) | {"server_cpu": server.process.cpu - server_before}


def combine(ones: list[dict[str, Any]]) -> dict[str, float]:
    """The figures of several processes of `benchmarks.load` as those of one."""
    sums = {name: sum(one[name] for one in ones) for name in ("calls", "rate", "cpu", "cores")}
    middle = sum(one["p50_ms"] * one["calls"] for one in ones) / sums["calls"]
    return sums | {"p50_ms": middle, "p99_ms": max(one["p99_ms"] for one in ones)}


async def offer(
    server: Server, method: str, *, rate: float, seconds: float, first: int
) -> tuple[list[float], dict[str, float]]:
    """Start so many calls a second, by the clock, from two processes; see `benchmarks.open_loop`.

    Returns how long each took, in milliseconds and in order of length, and the other figures.
    """
    arguments = ("--address", server.address, "--method", method, "--rate", rate / PROCESSES, "--seconds", seconds)
    ones = await asyncio.gather(
        *(
            run("benchmarks.open_loop", *arguments, "--first", first + place * _APART, "--seed", first + place)
            for place in range(PROCESSES)
        )
    )
    took = sorted(us / 1000 for one in ones for us in one["took_us"])
    figures = {name: sum(one[name] for one in ones) for name in ("calls", "rate", "cores")}
    return took, figures | {"late_ms": max(one["late_ms"] for one in ones)}


async def issue(server: Server, count: int, file: Path) -> None:
    """Have so many codes mailed, numbered from 0, and write them into `file`."""
    async with Process("benchmarks.issue", "--address", server.address, "--count", count, "--file", file) as process:
        await process.said(issued=count)


async def stream_batches(
    server: Server, *, name: str, batch: int, warm: float, seconds: float
) -> dict[str, float] | None:
    """Send mails in batches over `SendMails` from two processes; None where the server does not offer it.

    The figures are as those of `take_load`, with `calls` counting mails.
    """
    before = server.process.cpu
    arguments = ("--address", server.address, "--batch", batch, "--warm", warm, "--seconds", seconds)
    ones = await asyncio.gather(
        *(run("benchmarks.batches", *arguments, "--name", f"{name}-{place}") for place in range(PROCESSES))
    )
    if any(one["unimplemented"] for one in ones):
        return None
    return combine([one | {"calls": one["mails"]} for one in ones]) | {"server_cpu": server.process.cpu - before}
