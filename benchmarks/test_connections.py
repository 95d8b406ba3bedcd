"""What connections bring, and cost, from 1 to 50: 64 callers, a relay 20 ms away."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median

from benchmarks.callers import take_load
from benchmarks.processes import Certificates, Relay, Server, relay, service
from benchmarks.results import Promise, Results

ROUND_TRIP_MS = 20


@dataclass(slots=True)
class Contender:
    """A service with so many connections, and what each round of load on it gave."""

    connections: int
    relay: Relay
    server: Server
    rounds: list[dict[str, float]] = field(default_factory=list)

    async def take_load(self, warm: float, seconds: float) -> None:
        """Let the callers call for that long."""
        self.rounds.append(await take_load(self.server, warm=warm, seconds=seconds))

    def _middle(self, name: str) -> float:
        return median(measured[name] for measured in self.rounds)

    def row(self) -> dict[str, float]:
        """What it did, in the middle one of the rounds, and what it has resident. Ask while it runs."""
        calls = sum(measured["calls"] for measured in self.rounds)
        return {
            "connections": self.connections,
            "mails/s": self._middle("rate"),
            "p50_ms": self._middle("p50_ms"),
            "p99_ms": self._middle("p99_ms"),
            "sender us/mail": sum(measured["server_cpu"] for measured in self.rounds) / calls * 1e6,
            "sender MiB": self.server.process.resident / (1 << 20),
            "callers us/mail": sum(measured["cpu"] for measured in self.rounds) / calls * 1e6,
            "callers cores": self._middle("cores"),
        }


async def test_cost_by_connections(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """Few connections carry as much as many: what 64 callers get is gRPC's to say, not the number of connections."""
    counts, rounds, warm, seconds = ((2, 20), 1, 0.3, 0.7) if quick else ((1, 2, 5, 10, 20, 50), 3, 0.5, 2.5)
    async with AsyncExitStack() as stack:
        contenders = []
        for count in counts:
            at = await stack.enter_async_context(relay(certificates, "--rtt", ROUND_TRIP_MS, "--distinct"))
            contenders.append(Contender(count, at, await stack.enter_async_context(service(at, WORKERS=count))))
        for _ in range(rounds):  # side by side, so that a noisy minute is everybody's
            for contender in contenders:
                await contender.take_load(warm, seconds)
        rows = [contender.row() for contender in contenders]
    for contender in contenders:
        contender.relay.assert_took(round(sum(measured["calls"] for measured in contender.rounds)))
    few = next(row for row in rows if row["connections"] == (2 if quick else 5))
    results.report(
        rows,
        Promise(
            what="mails/s with the most, of those with few",
            figure=rows[-1]["mails/s"] / few["mails/s"],
            at_least=0.8,
            margin=4,
        ),
    )
