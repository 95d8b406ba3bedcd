"""Throughput and cost by the number of connections, from 1 to 50: 64 callers, a relay 20 ms away."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median

import pytest

from benchmarks.load.callers import NO_H2LOAD, has_h2load, send_mails
from benchmarks.peers.servers import Certificates, Relay, Server, relay, service
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

ROUND_TRIP_MS = 20


@dataclass(slots=True)
class Contender:
    """A service with so many connections, and the figures of each round."""

    connections: int
    relay: Relay
    server: Server
    rounds: list[dict[str, float]] = field(default_factory=list)

    async def send_mails(self, warm: float, seconds: float) -> None:
        """Take the load of one round."""
        self.rounds.append(await send_mails(self.server, warm=warm, seconds=seconds))

    @property
    def calls(self) -> int:
        """The calls of all rounds."""
        return round(sum(measured["calls"] for measured in self.rounds))

    def _middle(self, figure: str) -> float:
        return median(measured[figure] for measured in self.rounds)

    def row(self) -> dict[str, object]:
        """Its figures in the median round, and its resident memory. Call it while the service runs."""
        return {
            "connections": self.connections,
            "settings": self.server.settings,
            "mails/s": self._middle("rate"),
            "p50_ms": self._middle("p50_ms"),
            "p99_ms": self._middle("p99_ms"),
            "sender us/mail": sum(measured["server_cpu"] for measured in self.rounds) / self.calls * 1e6,
            "sender MiB": self.server.process.resident / (1 << 20),
            "h2load us/mail": sum(measured["cpu"] for measured in self.rounds) / self.calls * 1e6,
        }


async def test_cost_by_connections(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """Few connections carry as much as many: 64 callers are limited by gRPC, not by the number of connections."""
    if not has_h2load():
        pytest.skip(NO_H2LOAD)
    counts, rounds, warm, seconds = ((2, 20), 1, 0.3, 0.7) if quick else ((1, 2, 5, 10, 20, 50), 3, 0.5, 2.5)
    async with AsyncExitStack() as stack:
        contenders = []
        for count in counts:
            at = await stack.enter_async_context(relay(certificates, "--rtt", ROUND_TRIP_MS, "--distinct"))
            contenders.append(Contender(count, at, await stack.enter_async_context(service(at, WORKERS=count))))
        for _ in range(rounds):  # by turns, so that a noisy minute disturbs all alike
            for contender in contenders:
                await contender.send_mails(warm, seconds)
        rows = [contender.row() for contender in contenders]
    for contender in contenders:
        contender.relay.assert_took(contender.calls)
    few = next(row for row in rows if row["connections"] == (2 if quick else 5))
    results.report(
        rows,
        Promise(
            what="mails/s with the most, of those with few",
            figure=float(str(rows[-1]["mails/s"])) / float(str(few["mails/s"])),
            at_least=0.8,
            margin=4,
        ),
    )
