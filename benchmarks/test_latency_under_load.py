"""How long calls take by how many come a second, up to more than can be answered; none waits for another."""

from typing import Any

from benchmarks.callers import offer, take_load
from benchmarks.processes import Certificates, relay, service
from benchmarks.results import Promise, Results

_LOADS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1)  # of what 64 callers in a closed loop get answered
_FOR_P999 = 3000  # calls, in which the p99.9 is the third from the top
_NEXT = 1_000_000  # between the first numbers of two runs


def _at(part: float, took: list[float]) -> float:
    return took[min(len(took) - 1, int(len(took) * part))]


async def _measure(certificates: Certificates, method: str, *, quick: bool) -> list[dict[str, Any]]:
    """A row for each load, of a service and a relay that are all its own."""
    rows: list[dict[str, Any]] = []
    async with relay(certificates, "--distinct") as at, service(at) as server:
        most = await take_load(server, method, warm=0.3 if quick else 1, seconds=0.7 if quick else 4)
        calls = most["calls"]
        for place, load in enumerate((0.5,) if quick else _LOADS, 1):
            rate = most["rate"] * load
            seconds = 1.0 if quick else max(4.0, _FOR_P999 / rate)
            before = server.process.cpu
            took, measured = await offer(server, method, rate=rate, seconds=seconds, first=place * _NEXT)
            calls += measured["calls"]
            rows.append(
                {
                    "method": method,
                    "load": load,
                    "offered/s": rate,
                    "answered/s": measured["rate"],
                    "p50_ms": _at(0.5, took),
                    "p99_ms": _at(0.99, took),
                    "p99.9_ms": _at(0.999, took),
                    "server us/call": (server.process.cpu - before) / measured["calls"] * 1e6,
                    "callers cores": measured["cores"],
                    "callers late_ms": measured["late_ms"],
                }
            )
    at.assert_took(round(calls))
    return rows


async def test_latency_by_offered_load(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """At half of what the service can do, calls are answered as fast as they come, and within some milliseconds."""
    rows = [row for method in ("SendMail", "SendCode") for row in await _measure(certificates, method, quick=quick)]
    half = [row for row in rows if row["load"] == 0.5]
    results.report(
        rows,
        Promise(
            what="answered, of what is offered, at half load",
            figure=min(row["answered/s"] / row["offered/s"] for row in half),
            at_least=0.95,
            margin=1.5,
        ),
        Promise(what="p50 at half load, ms", figure=max(row["p50_ms"] for row in half), at_most=10, timed=True),
    )
