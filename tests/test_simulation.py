"""The simulation behind docs/scaling.md: its events, its servers and its replicas, by figures known beforehand."""

import pytest

from benchmarks.simulation.events import Simulation
from benchmarks.simulation.fleet import HOP_SECONDS, Method, run
from benchmarks.simulation.replica import STEPS, Costs, turn_of
from benchmarks.simulation.server import Server

COSTS = Costs(call=0.0003, turn=0.0001, cores=1.0)


def test_events_are_in_order() -> None:
    """Events run in the order of time, and those of one moment in the order in which they came."""
    simulation, seen = Simulation(1), list[str]()
    for seconds, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (3.0, "too late")):
        simulation.after(seconds, lambda name=name: seen.append(name))  # type: ignore[misc]
    simulation.run(3.0)
    assert (seen, simulation.now) == (["a", "b", "c"], 3.0)


def test_arrivals_have_their_rate() -> None:
    """Arrivals by the clock come as often as asked for, and the same seed brings the same ones."""
    counts = []
    for _ in range(2):
        simulation, came = Simulation(7), list[float]()
        simulation.arrive(1000, lambda came=came, simulation=simulation: came.append(simulation.now))  # type: ignore[misc]
        simulation.run(10)
        counts.append(len(came))
    assert counts[0] == counts[1] == pytest.approx(10_000, rel=0.05)


def test_a_server_shares_its_turns() -> None:
    """A turn costs once for all that waits: three pieces that come during a first one end together in the second."""
    simulation = Simulation(1)
    server, ended = Server(simulation, 0.1), list[float]()
    for seconds in (0.0, 0.05, 0.05, 0.05):
        simulation.after(seconds, lambda: server.add(1.0, lambda: ended.append(simulation.now)))
    simulation.run(10)
    assert ended == pytest.approx([1.1, 4.2, 4.2, 4.2])
    assert server.busy == pytest.approx(4.2)


def test_an_idle_replica() -> None:
    """A lone call takes its own time, a turn for each step and the hops between; nothing holds it back."""
    outcome = run([Method(costs=COSTS, rate=5)], replicas=1, seconds=60)
    alone = COSTS.call + STEPS * COSTS.turn + (STEPS - 1) * HOP_SECONDS
    assert outcome.latencies[0].p50 == pytest.approx(alone * 1e3)
    assert outcome.replica_cores == pytest.approx(5 * (COSTS.call + STEPS * COSTS.turn), rel=0.1)


def test_a_full_part() -> None:
    """Beyond what a replica, or the shard of all replicas, can do, latency grows with time; below it does not."""

    def p50(rate: float, script: float) -> float:
        method = Method(costs=COSTS, rate=rate, script=script)
        return run([method], replicas=8, seconds=2, store_away=0.0005).latencies[0].p50

    assert p50(1000, 0.0001) < 20
    assert p50(1000, 0.0002) > 100  # 8,000 scripts a second of 0.2 ms
    assert p50(4000, 0.00001) > 100


def test_costs_of_what_was_measured() -> None:
    """Costs give back the processor time that they come from: for a call alone, and for one of a whole batch."""
    costs = Costs.of(turn_cpu=turn_of(idle_cpu=400e-6, busy_cpu=130e-6), busy_cpu=130e-6, highest=9000)
    assert (costs.call + STEPS * costs.turn) * costs.cores == pytest.approx(400e-6)
    assert (costs.call + STEPS * costs.turn / 32) * costs.cores == pytest.approx(130e-6)
