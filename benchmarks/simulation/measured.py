"""The input of the simulation: the results of benchmarks of the last full run, and nothing else."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report.files import DIRECTORY, file_of
from benchmarks.simulation.replica import Costs, turn_of

Row = Mapping[str, Any]
_IDLE_LOAD, _OURS = 0.1, "otpmail"


@dataclass(frozen=True, slots=True)
class Load:
    """A method at one rate as `test_latency_under_load` measured it, in calls a second and milliseconds."""

    method: str
    part: float
    rate: float
    p50: float
    p99: float
    cpu_us: float


def has(benchmark: str) -> bool:
    """Whether a full run of that benchmark has left its results."""
    return file_of(benchmark, DIRECTORY, quick=False).exists()


def loads(method: str) -> list[Load]:
    """Return what `test_latency_under_load` measured of a method, the lowest load first."""
    return [
        Load(method, row["load"], row["offered/s"], row["p50_ms"], row["p99_ms"], row["server us/call"])
        for row in _rows("latency_under_load")
        if row["method"] == method
    ]


def highest_rate(method: str) -> float:
    """Return the calls a second that one core answered to 64 callers, from `test_unary`."""
    return float(_unary(method)["calls/s"])


def costs(method: str) -> Costs:
    """Return what a call costs: idle from `test_latency_under_load` at its lowest load, busy from `test_unary`.

    ValidateCode has no such row, and its turns cost what those of SendCode do.
    """
    busy = _unary(method)
    busy_cpu, highest = busy["server us/call"] / 1e6, busy["calls/s"]
    if method == "ValidateCode":
        return Costs.of(turn_cpu=costs("SendCode").turn_cpu, busy_cpu=busy_cpu, highest=highest)
    idle = next(load for load in loads(method) if load.part == _IDLE_LOAD)
    return Costs.of(turn_cpu=turn_of(idle_cpu=idle.cpu_us / 1e6, busy_cpu=busy_cpu), busy_cpu=busy_cpu, highest=highest)


@dataclass(frozen=True, slots=True)
class Shared:
    """The cost of a call with a store on Redis: for the replica, and for the store's thread, in seconds."""

    costs: Costs
    script: float


def shared(method: str) -> Shared:
    """Return what `test_shard` measured of a method; for its turns see `costs`."""
    row = next(row for row in _rows("shard") if row["call"] == method)
    busy = Costs.of(turn_cpu=costs("SendCode").turn_cpu, busy_cpu=row["server us/call"] / 1e6, highest=row["calls/s"])
    return Shared(busy, row["redis us/call"] / 1e6)


def connection_rate() -> float:
    """Return the mails a second that one connection carries to a relay 20 ms away, from `test_connections`."""
    return float(next(row["mails/s"] for row in _rows("connections") if row["connections"] == 1))


def _unary(method: str) -> Row:
    return next(row for row in _rows("unary") if (row["method"], row["server"]) == (method, _OURS))


def _rows(name: str) -> Sequence[Row]:
    rows: Sequence[Row] = json.loads(file_of(name, DIRECTORY, quick=False).read_text("utf-8"))["rows"]
    return rows
