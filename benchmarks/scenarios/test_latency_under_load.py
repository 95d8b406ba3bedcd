"""The latency of calls by how many come a second, up to more than can be answered, in an open loop."""

from typing import Any

from benchmarks.load.callers import highest_rate, offer, percentile
from benchmarks.peers.servers import Certificates, relay, service
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

_LOADS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1)  # of the rate of 64 callers in a closed loop
_FOR_P999 = 3000  # calls, in which the p99.9 is the third from the top
_NEXT = 1_000_000  # between the first numbers of two runs


async def _measure(certificates: Certificates, method: str, *, quick: bool) -> list[dict[str, Any]]:
    """A row for each load, on a service and a relay that no other method uses."""
    rows: list[dict[str, Any]] = []
    async with relay(certificates, "--distinct") as at, service(at) as server:
        highest, calls = await highest_rate(server, method, warm=0.3 if quick else 1, seconds=0.7 if quick else 4)
        for place, load in enumerate((0.5,) if quick else _LOADS, 1):
            rate = highest * load
            seconds = 1.0 if quick else max(4.0, _FOR_P999 / rate)
            took, measured = await offer(server, method, rate=rate, seconds=seconds, first=place * _NEXT)
            calls += measured["calls"]
            rows.append(
                {
                    "method": method,
                    "settings": server.settings,
                    "load": load,
                    "offered/s": rate,
                    "answered/s": measured["rate"],
                    "p50_ms": percentile(took, 0.5),
                    "p99_ms": percentile(took, 0.99),
                    "p99.9_ms": percentile(took, 0.999),
                    "server us/call": measured["server_cpu"] / measured["calls"] * 1e6,
                    "callers cores": measured["cores"],
                    "callers late_ms": measured["late_ms"],
                }
            )
    at.assert_took(round(calls))
    return rows


async def test_latency_by_offered_load(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """At half of what the service can answer, it answers calls as fast as they come, and within 10 ms."""
    rows = [row for method in ("SendMail", "SendCode") for row in await _measure(certificates, method, quick=quick)]
    half = [row for row in rows if row["load"] == 0.5]
    results.report(
        rows,
        Promise(
            what="answered, of what is offered, at half load",
            figure=min(row["answered/s"] / row["offered/s"] for row in half),
            at_least=0.95,
            timed=True,
        ),
        Promise(what="p50 at half load, ms", figure=max(row["p50_ms"] for row in half), at_most=10, timed=True),
    )
