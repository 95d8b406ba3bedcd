"""Replicas that share one store, under calls that come by the clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

from benchmarks.simulation.events import Simulation
from benchmarks.simulation.replica import STEPS, Costs, Done, Replica, Wait
from benchmarks.simulation.server import Server

HOP_SECONDS = 30e-6
"""From a reply at the socket to the loop that waits for it, through a thread of gRPC or the kernel."""

_IN_FULL = 2
_WARM_SECONDS = 0.75  # three measurements of the batch window


@dataclass(frozen=True, slots=True)
class Latency:
    """The waits of callers of one method, in milliseconds."""

    p50: float
    p99: float

    @classmethod
    def of(cls, took: list[float]) -> Self:
        """Summarize times in seconds."""
        took = sorted(took)
        return cls(took[len(took) // 2] * 1e3, took[len(took) * 99 // 100] * 1e3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The waits of callers by method, and how busy a replica and the store's thread were, in cores."""

    latencies: tuple[Latency, ...]
    replica_cores: float
    store_cores: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Calls of one method: `rate` a second for each replica, each with one script if there is a store.

    `script` is for how long that keeps the store's thread busy, and `relay` how far away the relay is, in seconds.
    """

    costs: Costs
    rate: float
    script: float = 0.0
    relay: float = 0.0


def run(
    methods: Sequence[Method], *, replicas: int, seconds: float, store_away: float | None = None, seed: int = 1
) -> Outcome:
    """Simulate replicas, and their store if it is so many seconds away, there and back.

    Two of the replicas are simulated, and of the others what they ask of the store.
    """
    simulation = Simulation(seed)
    shard = Server(simulation, 0.0)
    simulated = [Replica(simulation, methods[0].costs) for _ in range(min(_IN_FULL, replicas))]
    times: list[list[float]] = [[] for _ in methods]
    for method, took in zip(methods, times, strict=True):
        waits = _waits(simulation, shard, method, store_away)
        for replica in simulated:
            simulation.arrive(method.rate, _caller(simulation, replica, method, waits, took))
        others = method.rate * (replicas - len(simulated))
        if store_away is not None and others:
            simulation.arrive(others, partial(shard.add, method.script, _nothing))
    simulation.run(seconds)
    loops = sum(replica.loop.busy for replica in simulated) / len(simulated)
    return Outcome(
        latencies=tuple(Latency.of(took) for took in times),
        replica_cores=loops / seconds * methods[0].costs.cores,
        store_cores=shard.busy / seconds,
    )


def _nothing() -> None:
    pass


def _waits(simulation: Simulation, shard: Server, method: Method, store_away: float | None) -> list[Wait]:
    """Waits of a call between its steps: for the store if there is one, and for the relay."""

    def hop(then: Done) -> None:
        simulation.after(HOP_SECONDS + method.relay, then)

    if store_away is None:
        return [hop] * (STEPS - 1)
    one_way = store_away / 2

    def ask(then: Done) -> None:
        simulation.after(one_way, lambda: shard.add(method.script, lambda: simulation.after(one_way, then)))

    return [ask, hop]


def _caller(simulation: Simulation, replica: Replica, method: Method, waits: list[Wait], took: list[float]) -> Done:
    def arrived() -> None:
        came = simulation.now

        def answered() -> None:
            if came > _WARM_SECONDS:
                took.append(simulation.now - came + method.costs.elsewhere)

        replica.call(waits, answered, seconds=method.costs.call)

    return arrived
