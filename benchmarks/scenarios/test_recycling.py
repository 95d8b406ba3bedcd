"""Throughput with a relay that ends each connection after 100 mails, beside a relay without such a limit."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Self

from benchmarks.load.callers import NO_H2LOAD, has_h2load, send_batches, send_mails
from benchmarks.peers.servers import Certificates, Relay, Server, relay, service
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

_LIMIT = 100  # mails on one connection
_PROMISED = {20: 0.9, 0: 0.75}  # of the rate without a limit, by the round trip in ms; handshakes take the rest
_UNCOUNTED = 1000  # mails, in which the service learns the limit
_BATCH = 100


@dataclass(slots=True)
class Contender:
    """A service with a relay of its own, and the figures of each round by method."""

    round_trip_ms: int
    limit: int
    relay: Relay
    server: Server
    rounds: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    mails: float = 0

    async def take(self, method: str, warm: float, seconds: float) -> None:
        """Take one round, of which the warming up does not count."""
        rounds = self.rounds.setdefault(method, [])
        before = self.relay.cpu
        measured = await _LOADS[method](self.server, f"{method}-{len(rounds)}", warm, seconds)
        self.mails += measured["calls"]
        rounds.append(measured | {"relay_cpu": self.relay.cpu - before})

    async def learn(self, warm: float) -> None:
        """Send the mails that are not counted."""
        done = 0.0
        while done < _UNCOUNTED:
            done += (await send_batches(self.server, name=f"learn-{done:.0f}", batch=_BATCH, warm=0, seconds=warm))[
                "calls"
            ]
        self.mails += done

    def part(self, other: Self, method: str) -> float:
        """Its rate as a part of another's, round by round, since a disturbance meets neighbours alike."""
        rounds = zip(self.rounds[method], other.rounds[method], strict=True)
        return median(own["rate"] / others["rate"] for own, others in rounds)

    def row(self, method: str, unlimited: Self) -> dict[str, object]:
        """Its figures with one method. Call it once the relay has ended."""
        rounds = self.rounds[method]
        calls = sum(one["calls"] for one in rounds)
        return {
            "method": method,
            "settings": self.server.settings,
            "ms away": self.round_trip_ms,
            "relay's limit": self.limit or "",
            "mails/s": median(one["rate"] for one in rounds),
            "of no limit": self.part(unlimited, method),
            "p99_ms": median(one["p99_ms"] for one in rounds),
            "sender us/mail": sum(one["server_cpu"] for one in rounds) / calls * 1e6,
            "relay us/mail": sum(one["relay_cpu"] for one in rounds) / calls * 1e6,
            "connections": self.relay.counts["connections"],
            "421s": self.relay.counts["closed"],
        }


async def _send_mails(server: Server, _: str, warm: float, seconds: float) -> dict[str, float]:
    return await send_mails(server, warm=warm, seconds=seconds)


async def _send_batches(server: Server, name: str, warm: float, seconds: float) -> dict[str, float]:
    return await send_batches(server, name=name, batch=_BATCH, warm=warm, seconds=seconds)


_LOADS: dict[str, Callable[[Server, str, float, float], Awaitable[dict[str, float]]]] = {
    "SendMail": _send_mails,
    "SendMails": _send_batches,
}


async def _start(certificates: Certificates, stack: AsyncExitStack) -> list[Contender]:
    """Start a service for each distance, with and without a limit."""
    contenders = []
    for round_trip_ms in _PROMISED:
        for limit in (0, _LIMIT):
            arguments = ("--rtt", round_trip_ms, "--close-after", limit, "--distinct")
            at = await stack.enter_async_context(relay(certificates, *arguments))
            server = await stack.enter_async_context(service(at))
            contenders.append(Contender(round_trip_ms, limit, at, server))
    return contenders


async def test_rate_with_a_limit_of_mails_on_a_connection(
    certificates: Certificates, results: Results, *, quick: bool
) -> None:
    """The service learns how many mails a connection may carry, and replaces connections ahead of that limit."""
    rounds, warm, seconds = (1, 0.3, 0.7) if quick else (5, 0.5, 3.0)
    methods = [method for method in _LOADS if method == "SendMails" or (has_h2load() and not quick)]
    async with AsyncExitStack() as stack:
        contenders = await _start(certificates, stack)
        for contender in contenders:
            await contender.learn(warm)
        for _ in range(rounds):
            for method in methods:
                for contender in contenders:  # by turns, so that a noisy minute disturbs all alike
                    await contender.take(method, warm, seconds)
    for contender in contenders:
        contender.relay.assert_took(round(contender.mails))
    pairs = [(contenders[0], contenders[1]), (contenders[2], contenders[3])]
    results.report(
        [
            one.row(method, unlimited)
            for method in methods
            for unlimited, limited in pairs
            for one in (unlimited, limited)
        ],
        *(
            Promise(
                what=f"{method}, of the rate without a limit, {limited.round_trip_ms} ms away",
                figure=limited.part(unlimited, method),
                at_least=_PROMISED[limited.round_trip_ms],
                margin=4,
            )
            for method in methods
            for unlimited, limited in pairs
        ),
        note="" if quick or has_h2load() else NO_H2LOAD,
    )
