"""What several processes carry (PROCESSES), with a store on a server of Redis: the same calls to one and to two."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median

import pytest

from benchmarks.load.callers import NO_H2LOAD, has_h2load, send_mails
from benchmarks.peers.servers import Certificates, Server, redis_server, relay, service
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

_KEYS = f"k1:{base64.b64encode(bytes(range(32))).decode()}"
_CPU = "server us/call"
_WORKERS = 10  # five for each of two processes
_CONNECTIONS = 32  # so that each process gets about half of them
_LOADS = {"SendMail, waits for the relay": 0, "SendMail, WAIT_FOR_QUEUE, 1 KB": 1_000}

Figures = dict[str, float]


@asynccontextmanager
async def _services(certificates: Certificates) -> AsyncIterator[Mapping[int, Server]]:
    """A service of one process and one of two, each with a relay and a store of its own."""
    async with AsyncExitStack() as stack:
        servers = {}
        for count in (1, 2):
            redis = await stack.enter_async_context(redis_server())
            at = await stack.enter_async_context(relay(certificates))
            settings = {"PROCESSES": count, "WORKERS": _WORKERS, "STORE_URL": redis.url, "OTP_KEYS": _KEYS}
            servers[count] = await stack.enter_async_context(service(at, **settings))
            for _ in range(count - 1):
                await servers[count].process.line(event="relay-up")
        yield servers


async def test_rates_by_processes(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """A call takes two processes hardly more processor time than one, so that they carry more where processors are."""
    if not has_h2load():
        pytest.skip(NO_H2LOAD)
    warm, seconds, rounds = (0.3, 0.7, 1) if quick else (1.0, 4.0, 3)
    measured: dict[tuple[str, int], list[Figures]] = {}
    async with _services(certificates) as servers:
        for name, octets in _LOADS.items():
            for _ in range(rounds):  # by turns, so that a noisy minute disturbs both alike
                for count, server in servers.items():
                    measured.setdefault((name, count), []).append(await _measure(server, octets, warm, seconds))
    rows = [_row(name, count, figures) for (name, count), figures in measured.items()]
    promises = [
        Promise(what=f"CPU of a call beside one process: {name}", figure=_part(name, _CPU, rows), at_most=1.7)
        for name in _LOADS
    ]
    ratios = ", ".join(f"{_part(name, 'calls/s', rows):.2f} ({name})" for name in _LOADS)
    note = (
        f"two processes carry this times the calls of one: {ratios}\n"
        f"with {os.cpu_count()} processors for the service, h2load, the relay and the store together; "
        "the column says how many of them the service had"
    )
    results.report(rows, *promises, note=note)


async def _measure(server: Server, octets: int, warm: float, seconds: float) -> Figures:
    loop = asyncio.get_running_loop()
    began = loop.time()
    figures = await send_mails(server, warm=warm, seconds=seconds, guaranteed_octets=octets, connections=_CONNECTIONS)
    return figures | {"server_cores": figures["server_cpu"] / (loop.time() - began)}


def _row(name: str, count: int, rounds: list[Figures]) -> dict[str, object]:
    middle = {key: median(figures[key] for figures in rounds) for key in ("rate", "p50_ms", "p99_ms", "server_cores")}
    calls = sum(figures["calls"] for figures in rounds)
    return {
        "load": name,
        "processes": count,
        "calls/s": middle["rate"],
        "p50_ms": middle["p50_ms"],
        "p99_ms": middle["p99_ms"],
        _CPU: sum(figures["server_cpu"] for figures in rounds) / calls * 1e6,
        "processors of the service": middle["server_cores"],
        "settings": f"WORKERS={_WORKERS}",
    }


def _part(name: str, column: str, rows: list[dict[str, object]]) -> float:
    """What two processes have of a figure, as a part of what one has."""
    one, two = (next(row[column] for row in rows if (row["load"], row["processes"]) == (name, n)) for n in (1, 2))
    assert isinstance(one, float)
    assert isinstance(two, float)
    return two / one
