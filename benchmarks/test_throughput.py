"""How many mails a second 64 callers get through 5 connections to a relay 20 ms away, beside a pool of aiosmtplib's."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median

from benchmarks.processes import Certificates, Relay, Server, aiosmtplib_pool, echo, relay, run, service
from benchmarks.results import Promise, Results

CALLERS = 64
ROUND_TRIP_MS = 20
_OURS = "otpmail"
_POOL = "aiosmtplib, a pool"


@dataclass(slots=True)
class Contender:
    """A server with a relay of its own, and what each round of load on it gave."""

    name: str
    relay_has: str
    relay: Relay | None
    server: Server
    rounds: list[dict[str, float]]

    async def take_load(self, warm: float, seconds: float) -> None:
        """Let the callers call for that long."""
        server_before, relay_before = self.server.process.cpu, self.relay.cpu if self.relay else 0.0
        measured = await run(
            "benchmarks.load",
            *("--address", self.server.address, "--callers", CALLERS, "--warm", warm, "--seconds", seconds),
        )
        measured["server_cpu"] = self.server.process.cpu - server_before
        measured["relay_cpu"] = self.relay.cpu - relay_before if self.relay else 0.0
        self.rounds.append(measured)

    @property
    def rate(self) -> float:
        """Mails a second in the middle one of the rounds."""
        return median(measured["rate"] for measured in self.rounds)

    def assert_sent_all(self) -> None:
        """Hold it to have sent every mail that it said it had, once."""
        if self.relay:
            self.relay.assert_took(round(sum(measured["calls"] for measured in self.rounds)))

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


async def _start(certificates: Certificates, stack: AsyncExitStack) -> list[Contender]:
    """Everybody who takes part, each with a relay of its own; the one who sends nothing has none."""
    contenders = [Contender("gRPC alone", "", None, await stack.enter_async_context(echo(ROUND_TRIP_MS)), [])]
    for name, start, relay_has, hide in (
        (_POOL, aiosmtplib_pool, "CHUNKING", ()),  # it uses neither
        (_OURS, service, "CHUNKING", ()),
        (_OURS, service, "PIPELINING", ("--hide", "CHUNKING")),
    ):
        at = await stack.enter_async_context(relay(certificates, "--rtt", ROUND_TRIP_MS, "--distinct", *hide))
        contenders.append(Contender(name, relay_has, at, await stack.enter_async_context(start(at)), []))
    return contenders


async def test_mails_a_second(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """With a window of mails in flight the distance to the relay stops counting; the pool pays it four times a mail."""
    rounds, warm, seconds = (1, 0.5, 2.0) if quick else (5, 1.0, 5.0)
    async with AsyncExitStack() as stack:
        contenders = await _start(certificates, stack)
        for _ in range(rounds):  # side by side, so that a noisy minute is everybody's
            for contender in contenders:
                await contender.take_load(warm, seconds)
    for contender in contenders:
        contender.assert_sent_all()
    rates = {(contender.name, contender.relay_has): contender.rate for contender in contenders}
    results.report(
        [contender.row() for contender in contenders],
        *(
            Promise(what=f"times the pool, {has}", figure=rates[_OURS, has] / rates[_POOL, "CHUNKING"], at_least=times)
            for has, times in (("CHUNKING", 40.0), ("PIPELINING", 3.5))
        ),
    )
