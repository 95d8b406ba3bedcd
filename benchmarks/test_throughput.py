"""How many mails a second 64 callers get through 5 connections to a relay 20 ms away, beside a pool of aiosmtplib's."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median

from benchmarks.processes import Certificates, Relay, Server, aiosmtplib_pool, relay, run, service
from benchmarks.results import Promise, Results

CALLERS = 64
ROUND_TRIP_MS = 20


@dataclass(slots=True)
class Contender:
    """A server with a relay of its own, and what each round of load on it gave."""

    name: str
    relay_has: str
    relay: Relay
    server: Server
    rounds: list[dict[str, float]]

    async def take_load(self, warm: float, seconds: float) -> None:
        """Let the callers call for that long."""
        server_before, relay_before = self.server.process.cpu, self.relay.cpu
        measured = await run(
            "benchmarks.load",
            *("--address", self.server.address, "--callers", CALLERS, "--warm", warm, "--seconds", seconds),
        )
        measured["server_cpu"] = self.server.process.cpu - server_before
        measured["relay_cpu"] = self.relay.cpu - relay_before
        self.rounds.append(measured)

    @property
    def rate(self) -> float:
        """Mails a second in the middle one of the rounds."""
        return median(measured["rate"] for measured in self.rounds)

    def row(self) -> dict[str, object]:
        """What it did, and what each side of it cost in processor time for a mail."""
        calls = sum(measured["calls"] for measured in self.rounds)
        each = {name: sum(m[name] for m in self.rounds) / calls * 1e6 for name in ("server_cpu", "cpu", "relay_cpu")}
        return {
            "sender": self.name,
            "relay has": self.relay_has,
            "mails/s": self.rate,
            "p50_ms": median(measured["p50_ms"] for measured in self.rounds),
            "p99_ms": median(measured["p99_ms"] for measured in self.rounds),
            "sender us/mail": each["server_cpu"],
            "callers us/mail": each["cpu"],
            "relay us/mail": each["relay_cpu"],
        }


async def test_mails_a_second(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """With a window of mails in flight the distance to the relay stops counting; the pool pays it four times a mail."""
    rounds, warm, seconds = (1, 0.5, 2.0) if quick else (5, 1.0, 5.0)
    contenders = {}
    async with AsyncExitStack() as stack:
        for name, start in (("aiosmtplib, a pool", aiosmtplib_pool), ("otpmail", service)):
            for relay_has, hide in (("CHUNKING", ()), ("PIPELINING", ("--hide", "CHUNKING"))):
                if start is aiosmtplib_pool and hide:
                    continue  # it uses neither
                at = await stack.enter_async_context(relay(certificates, "--rtt", ROUND_TRIP_MS, "--distinct", *hide))
                server = await stack.enter_async_context(start(at))
                contenders[name, relay_has] = Contender(name, relay_has, at, server, [])
        for _ in range(rounds):  # side by side, so that a noisy minute is everybody's
            for contender in contenders.values():
                await contender.take_load(warm, seconds)
    for contender in contenders.values():
        contender.relay.assert_took(round(sum(measured["calls"] for measured in contender.rounds)))
    pool = contenders["aiosmtplib, a pool", "CHUNKING"].rate
    results.report(
        [contender.row() for contender in contenders.values()],
        *(
            Promise(what=f"times the pool, {has}", figure=contenders["otpmail", has].rate / pool, at_least=times)
            for has, times in (("CHUNKING", 40.0), ("PIPELINING", 3.5))
        ),
    )
