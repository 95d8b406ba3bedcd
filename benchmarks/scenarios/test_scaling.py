"""How many replicas and how much of a shared store a load needs, up to ten thousand times the first: docs/scaling.md.

Simulated from the results of the other benchmarks. A code is one SendCode and one ValidateCode.
"""

from math import ceil

import pytest

from benchmarks.report.promise import Promise
from benchmarks.report.results import Results
from benchmarks.simulation import measured
from benchmarks.simulation.fleet import Method, Outcome, run

_CODES_A_SECOND = (10, 100, 1_000, 10_000, 100_000)  # 10 a second are 864,000 a day
_CORE_PART = 0.5  # of its highest rate that a replica is given, so that another one may fail beside it
_SHARD_PART = 0.5  # of its thread that a shard is given
_FEWEST = 2
_ROUND_TRIP = 0.0005  # to the store and back, within a data centre: assumed, not measured
_DISTANCE = 0.02  # of the relay: as in test_connections


_METHODS = ("SendCode", "ValidateCode")


def _shards(codes: float) -> int:
    """How many shards the load needs, each with a namespace and replicas of its own."""
    return max(1, ceil(codes * sum(measured.shared(method).script for method in _METHODS) / _SHARD_PART))


def _replicas(codes: float) -> int:
    """How many replicas the load of a shard needs, by their processor time."""
    return max(
        _FEWEST, ceil(codes * sum(1 / measured.shared(method).costs.highest for method in _METHODS) / _CORE_PART)
    )


def _simulate(codes: float, replicas: int, seconds: float) -> Outcome:
    send, check = (measured.shared(method) for method in _METHODS)
    rate = codes / replicas
    methods = [
        Method(costs=send.costs, rate=rate, script=send.script, relay=_DISTANCE),
        Method(costs=check.costs, rate=rate, script=check.script),
    ]
    return run(methods, replicas=replicas, seconds=seconds, store_away=_ROUND_TRIP)


def _row(codes: int, seconds: float) -> dict[str, float | int]:
    shards = _shards(codes)
    replicas = _replicas(codes / shards)
    outcome = _simulate(codes / shards, replicas, seconds)
    send, check = outcome.latencies
    return {
        "codes/s": codes,
        "shards": shards,
        "replicas": shards * replicas,
        "of a replica's core": outcome.replica_cores,
        "of a shard's core": outcome.store_cores,
        "SendCode p50_ms": send.p50,
        "SendCode p99_ms": send.p99,
        "ValidateCode p50_ms": check.p50,
        "ValidateCode p99_ms": check.p99,
        "connections": ceil(codes / measured.connection_rate()),
    }


async def test_scaling(results: Results, *, quick: bool) -> None:
    """With as many replicas as their processor time asks for, no part is full, whatever the load."""
    if not measured.has("shard"):
        pytest.skip("test_shard has no results yet")
    rows = [_row(codes, 1.5 if quick else 6.0) for codes in _CODES_A_SECOND]
    send, check = (measured.shared(method) for method in _METHODS)
    results.report(
        rows,
        Promise(
            what="the fullest replica, of its core", figure=max(row["of a replica's core"] for row in rows), at_most=1
        ),
        Promise(
            what="the fullest shard, of its core", figure=max(row["of a shard's core"] for row in rows), at_most=0.7
        ),
        Promise(
            what="thousand codes/s that one shard's core could carry",
            figure=1e-3 / (send.script + check.script),
            at_least=5,
        ),
        note=f"A store {_ROUND_TRIP * 1000:g} ms away and a relay {_DISTANCE * 1000:g} ms away, there and back.",
    )
