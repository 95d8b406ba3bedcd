"""Mails a second that 64 callers get through 5 connections to a relay 20 ms away, beside a pool of aiosmtplib's."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median

import pytest

from benchmarks.load.callers import NO_H2LOAD, has_h2load, send_mails
from benchmarks.peers.servers import Certificates, Relay, Server, aiosmtplib_pool, echo, relay, service
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

ROUND_TRIP_MS = 20
_OURS = "otpmail"
_POOL = "aiosmtplib, a pool"


@dataclass(slots=True)
class Contender:
    """A server with a relay of its own, and the figures of each round; `relay` is None for the one that only echoes."""

    name: str
    relay_has: str
    relay: Relay | None
    server: Server
    rounds: list[dict[str, float]] = field(default_factory=list)

    async def send_mails(self, warm: float, seconds: float) -> None:
        """Take the load of one round."""
        before = self.relay.cpu if self.relay else 0.0
        measured = await send_mails(self.server, warm=warm, seconds=seconds)
        measured["relay_cpu"] = self.relay.cpu - before if self.relay else 0.0
        self.rounds.append(measured)

    def _middle(self, figure: str) -> float:
        return median(measured[figure] for measured in self.rounds)

    @property
    def rate(self) -> float:
        """Mails a second in the median round."""
        return self._middle("rate")

    def assert_sent_all(self) -> None:
        """Fail unless the relay took each mail of an answered call, once."""
        if self.relay:
            self.relay.assert_took(round(sum(measured["calls"] for measured in self.rounds)))

    def row(self) -> dict[str, object]:
        """Its figures, with the processor time of each process for a mail."""
        calls = sum(measured["calls"] for measured in self.rounds)
        each = {name: sum(m[name] for m in self.rounds) / calls * 1e6 for name in ("server_cpu", "cpu", "relay_cpu")}
        return {
            "sender": self.name,
            "settings": self.server.settings,
            "relay has": self.relay_has,
            "mails/s": self.rate,
            "p50_ms": self._middle("p50_ms"),
            "p99_ms": self._middle("p99_ms"),
            "sender us/mail": each["server_cpu"],
            "h2load us/mail": each["cpu"],
            "relay us/mail": each["relay_cpu"],
        }


async def _start(certificates: Certificates, stack: AsyncExitStack) -> list[Contender]:
    """Start all contenders, each with a relay of its own, but for the one that only echoes."""
    contenders = [Contender("gRPC alone", "", None, await stack.enter_async_context(echo(ROUND_TRIP_MS)))]
    for name, start, relay_has, hide in (
        (_POOL, aiosmtplib_pool, "CHUNKING", ()),  # it uses neither extension
        (_OURS, service, "CHUNKING", ()),
        (_OURS, service, "PIPELINING", ("--hide", "CHUNKING")),
    ):
        at = await stack.enter_async_context(relay(certificates, "--rtt", ROUND_TRIP_MS, "--distinct", *hide))
        contenders.append(Contender(name, relay_has, at, await stack.enter_async_context(start(at))))
    return contenders


async def test_mails_a_second(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """With a window of mails in flight the relay's distance stops counting; the pool pays it four times a mail."""
    if not has_h2load():
        pytest.skip(NO_H2LOAD)
    rounds, warm, seconds = (1, 0.5, 2.0) if quick else (5, 1.0, 5.0)
    async with AsyncExitStack() as stack:
        contenders = await _start(certificates, stack)
        for _ in range(rounds):  # by turns, so that a noisy minute disturbs all alike
            for contender in contenders:
                await contender.send_mails(warm, seconds)
    for contender in contenders:
        contender.assert_sent_all()
    rates = {(contender.name, contender.relay_has): contender.rate for contender in contenders}
    results.report(
        [contender.row() for contender in contenders],
        *(
            Promise(
                what=f"times the pool, {has}",
                figure=rates[_OURS, has] / rates[_POOL, "CHUNKING"],
                at_least=times,
                margin=margin,
            )
            # With CHUNKING the processor is the limit, and for the pool the distance. Without a window it is 4 times.
            for has, times, margin in (("CHUNKING", 40.0, 8.0), ("PIPELINING", 3.5, 2.0))
        ),
    )
