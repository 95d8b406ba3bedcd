"""The simulation of docs/scaling.md beside what was measured: latency and processor time by load, of one replica."""

from benchmarks.report.promise import Promise
from benchmarks.report.results import Results
from benchmarks.simulation import measured
from benchmarks.simulation.fleet import Method, Outcome, run
from benchmarks.simulation.measured import Load
from benchmarks.simulation.replica import Costs

_METHODS = ("SendMail", "SendCode")
_HALF, _CALIBRATED, _HIGHEST = 0.5, 0.1, 0.8  # beyond, callers and relay take a part of the two cores


def _simulate(costs: Costs, rate: float, seconds: float) -> Outcome:
    return run([Method(costs=costs, rate=rate)], replicas=1, seconds=seconds)


def _rows(method: str, seconds: float) -> list[dict[str, float | str]]:
    """A row for each load; the time that a call spends elsewhere is what the lowest load leaves unexplained."""
    lowest, *others = (load for load in measured.loads(method) if load.part <= _HIGHEST)
    bare = measured.costs(method)
    costs = bare.with_elsewhere((lowest.p50 - _simulate(bare, lowest.rate, seconds).latencies[0].p50) / 1e3)
    return [_row(load, _simulate(costs, load.rate, seconds)) for load in (lowest, *others)]


def _row(load: Load, outcome: Outcome) -> dict[str, float | str]:
    (latency,) = outcome.latencies
    return {
        "method": load.method,
        "load": load.part,
        "calls/s": load.rate,
        "p50_ms": load.p50,
        "p50_ms simulated": latency.p50,
        "p99_ms": load.p99,
        "p99_ms simulated": latency.p99,
        "us/call": load.cpu_us,
        "us/call simulated": outcome.replica_cores / load.rate * 1e6,
    }


def _ratio(row: dict[str, float | str], name: str) -> float:
    """How many times the simulated figure is the measured one, or the other way round: 1 or more."""
    simulated, real = float(row[f"{name} simulated"]), float(row[name])
    return max(simulated / real, real / simulated)


async def test_simulation(results: Results, *, quick: bool) -> None:
    """The simulation predicts, from other loads, nearly what was measured at half load."""
    rows = [row for method in _METHODS for row in _rows(method, 2.0 if quick else 8.0)]
    half = {row["method"]: row for row in rows if row["load"] == _HALF}
    results.report(
        rows,
        Promise(
            what="SendMail at half load, p50, times off",
            figure=_ratio(half["SendMail"], "p50_ms"),
            at_most=1.5,
            timed=True,
        ),
        Promise(
            what="SendMail at half load, p99, times off",
            figure=_ratio(half["SendMail"], "p99_ms"),
            at_most=1.5,
            timed=True,
        ),
        Promise(what="SendMail at half load, CPU, times off", figure=_ratio(half["SendMail"], "us/call"), at_most=1.2),
        Promise(
            what="SendCode at half load, p50, times off",
            figure=_ratio(half["SendCode"], "p50_ms"),
            at_most=2.5,
            timed=True,
        ),
        Promise(what="SendCode at half load, CPU, times off", figure=_ratio(half["SendCode"], "us/call"), at_most=1.5),
        note=f"Calibrated at load {_CALIBRATED:g} and by test_unary; all else is predicted.",
    )
