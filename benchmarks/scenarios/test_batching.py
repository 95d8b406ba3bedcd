"""The latency of `SendMail` with and without the batch window (`api.batching`) under load, in an open loop."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.load.callers import highest_rate, offer, percentile
from benchmarks.peers.servers import Certificates, Relay, Server, adjusted_service, relay
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

_LOADS = (0.25, 0.5, 0.75)  # of the rate with 64 calls in flight and the window
_WORSE = 1.1  # times the latency without: more than a tenth
_NEXT = 1_000_000  # between the first numbers of two rounds
_ALL_ANSWERED = 0.95


@dataclass(slots=True)
class Contender:
    """A service with or without the window, and the figures of each round by load."""

    name: str
    relay: Relay
    server: Server
    rounds: dict[float, list[dict[str, float]]] = field(default_factory=dict)
    calls: float = 0

    async def closed_loop(self, warm: float, seconds: float) -> float:
        """The rate that it answers with 64 calls in flight."""
        rate, calls = await highest_rate(self.server, "SendMail", warm=warm, seconds=seconds)
        self.calls += calls
        return rate

    async def offer(self, load: float, rate: float, seconds: float) -> None:
        """Take one round of so many calls a second."""
        rounds = self.rounds.setdefault(load, [])
        first = (len(self.rounds) * 100 + len(rounds)) * _NEXT
        took, measured = await offer(self.server, "SendMail", rate=rate, seconds=seconds, first=first)
        self.calls += measured["calls"]
        rounds.append(
            {
                "offered/s": rate,
                "answered/s": measured["rate"],
                "p50_ms": percentile(took, 0.5),
                "p99_ms": percentile(took, 0.99),
                "server us/call": measured["server_cpu"] / measured["calls"] * 1e6,
                "callers cores": measured["cores"],
                "callers late_ms": measured["late_ms"],
            }
        )

    def row(self, load: float) -> dict[str, Any]:
        """Its figures at one load: the medians of the rounds."""
        rounds = self.rounds[load]
        return {
            "load": load,
            "calls are": self.name,
            **{name: median(one[name] for one in rounds) for name in rounds[0]},
        }


async def _start(certificates: Certificates, stack: AsyncExitStack) -> list[Contender]:
    contenders = []
    for name, arguments in (("held back", ()), ("not held back", ("--batch-seconds", 0))):
        at = await stack.enter_async_context(relay(certificates, "--distinct"))
        server = await stack.enter_async_context(adjusted_service(at, *arguments))
        contenders.append(Contender(name, at, server))
    return contenders


async def test_latency_with_and_without_the_batch_window(
    certificates: Certificates, results: Results, *, quick: bool
) -> None:
    """The service answers all that is offered, and the results say where the window makes latency worse by a tenth."""
    loads, rounds, warm, seconds = ((0.5,), 1, 0.3, 1.0) if quick else (_LOADS, 5, 1.0, 4.0)
    async with AsyncExitStack() as stack:
        held, not_held = contenders = await _start(certificates, stack)
        capacity = [await contender.closed_loop(warm, 2 * seconds) for contender in contenders]
        for _ in range(rounds):
            for load in loads:
                for contender in contenders:  # by turns, so that a noisy minute disturbs both alike
                    await contender.offer(load, capacity[0] * load, seconds)
    for contender in contenders:
        contender.relay.assert_took(round(contender.calls))
    rows = [contender.row(load) for load in loads for contender in contenders]
    results.report(
        rows,
        Promise(
            what="answered, of what is offered, calls held back",
            figure=min(held.row(load)["answered/s"] / held.row(load)["offered/s"] for load in loads),
            at_least=_ALL_ANSWERED,
            timed=True,
        ),
        note="\n".join(
            [
                f"with 64 calls in flight: {capacity[0]:,.0f} calls/s held back, {capacity[1]:,.0f} not held back",
                *(_verdict(held.row(load), not_held.row(load)) for load in loads),
            ]
        ),
    )


def _verdict(held: dict[str, Any], not_held: dict[str, Any]) -> str:
    """Whether the window may act at this load, in one line."""
    times = {name: held[name] / not_held[name] for name in ("p50_ms", "p99_ms")}
    figures = ", ".join(f"{name.removesuffix('_ms')} {figure:.2f} times" for name, figure in times.items())
    worse = max(times.values()) > _WORSE
    return f"held back at load {held['load']:g}: {figures}: {'WORSE by more than a tenth' if worse else 'no worse'}"
