"""How the connections of callers are spread over two processes (PROCESSES): by chance, so that few are spread badly."""

from statistics import mean

import pytest

from benchmarks.load.callers import NO_H2LOAD, has_h2load, send_mails
from benchmarks.peers.servers import Certificates, Server, service_of_processes
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

_WORKERS = 10
_CONNECTIONS = (1, 2, 8, 32)


async def test_spread_of_connections(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """Each connection reaches a process by chance, so that few of them may all reach the same one."""
    if not has_h2load():
        pytest.skip(NO_H2LOAD)
    seconds, rounds = (0.2, 3) if quick else (0.4, 20)
    rows: list[dict[str, object]] = []
    highest = 0.0
    async with service_of_processes(certificates, 2, workers=_WORKERS) as server:
        for connections in _CONNECTIONS:
            parts = [await _busier_part(server, connections, seconds) for _ in range(rounds)]
            highest = max(parts)
            rows.append(
                {
                    "connections": connections,
                    "part of the busier process, mean": mean(parts),
                    "highest": highest,
                    "rounds": rounds,
                    "settings": f"PROCESSES=2 WORKERS={_WORKERS}",
                }
            )
    results.report(
        rows,
        Promise(what="part of the busier process with 32 connections", figure=highest, at_most=0.85),
        note="by the processor time of the two processes; each connection has one call at a time",
    )


async def _busier_part(server: Server, connections: int, seconds: float) -> float:
    """Return what the busier of two processes used of the processor time of both, over new connections."""
    before = server.process.cpu_of_children
    await send_mails(server, callers=connections, warm=0, seconds=seconds, connections=connections)
    used = [now - then for now, then in zip(server.process.cpu_of_children, before, strict=True)]
    return max(used) / sum(used)
