"""What connections bring, and cost, from 1 to 50: 64 callers, a relay 20 ms away."""

from benchmarks.callers import take_load
from benchmarks.processes import Certificates, relay, service
from benchmarks.results import Promise, Results

ROUND_TRIP_MS = 20


async def _measure(certificates: Certificates, connections: int, warm: float, seconds: float) -> dict[str, float]:
    async with (
        relay(certificates, "--rtt", ROUND_TRIP_MS, "--distinct") as at,
        service(at, WORKERS=connections) as server,
    ):
        measured = await take_load(server, warm=warm, seconds=seconds)
        memory = server.process.resident
    at.assert_took(round(measured["calls"]))
    return {
        "connections": connections,
        "mails/s": measured["rate"],
        "p50_ms": measured["p50_ms"],
        "p99_ms": measured["p99_ms"],
        "sender us/mail": measured["server_cpu"] / measured["calls"] * 1e6,
        "sender MiB": memory / (1 << 20),
        "callers us/mail": measured["cpu"] / measured["calls"] * 1e6,
        "callers cores": measured["cores"],
    }


async def test_cost_by_connections(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """Few connections carry as much as many: what 64 callers get is gRPC's to say, not the number of connections."""
    counts, warm, seconds = ((2, 20), 0.3, 0.7) if quick else ((1, 2, 5, 10, 20, 50), 1.0, 4.0)
    rows = [await _measure(certificates, count, warm, seconds) for count in counts]
    few = next(row for row in rows if row["connections"] in {2, 5})
    results.report(
        rows,
        Promise(
            what="mails/s with the most, of those with few", figure=rows[-1]["mails/s"] / few["mails/s"], at_least=0.8
        ),
    )
