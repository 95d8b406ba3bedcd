"""Unary calls beside a gRPC server that does nothing, under the same load: what is ours on top of grpc.aio's cost."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Self

from benchmarks.callers import issue, take_load
from benchmarks.processes import Certificates, Relay, Server, aiosmtplib_pool, echo, relay, service
from benchmarks.results import Promise, Results

_OURS, _ECHO, _POOL = "otpmail", "gRPC alone", "aiosmtplib, a pool"
_IN_TURNS = "gRPC alone, in turns"  # as otpmail's calls begin: what the stack itself could have that way
_PROMISED = {"SendMail": 0.7, "SendCode": 0.6, "ValidateCode": 0.8}
_CODES = 8000  # a second, more than are validated: when they run out a round ends early
_NEXT = 1_000_000  # between the first numbers of two rounds
_MARGIN = 3.0  # in a quick run: rounds of half a second, on a machine that may be busy


@dataclass(frozen=True, slots=True)
class Round:
    """How long a round of load is, in seconds, and how many there are."""

    count: int
    warm: float
    seconds: float

    @property
    def codes(self) -> int:
        """How many codes one may validate."""
        return round((self.warm + self.seconds) * _CODES)


@dataclass(slots=True)
class Contender:
    """A server, and what each round of load on it gave, by method. `relay` is None for the one that sends nothing."""

    name: str
    server: Server
    relay: Relay | None
    rounds: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    mails: float = 0

    @classmethod
    @asynccontextmanager
    async def all(cls, certificates: Certificates) -> AsyncIterator[list[Self]]:
        """Start everybody who takes part, each with a relay of its own."""
        async with AsyncExitStack() as stack:
            contenders = [cls(_ECHO, await stack.enter_async_context(echo(0)), None)]
            contenders.append(cls(_IN_TURNS, await stack.enter_async_context(echo(0, "--turns")), None))
            at = await stack.enter_async_context(relay(certificates, "--distinct"))
            contenders.append(cls(_POOL, await stack.enter_async_context(aiosmtplib_pool(at)), at))
            at = await stack.enter_async_context(relay(certificates, "--distinct"))
            ours = await stack.enter_async_context(service(at, OTP_RETURN_CODE="true", OTP_LIFESPAN_SECONDS=3600))
            yield [*contenders, cls(_OURS, ours, at)]

    async def take(self, method: str, load: Round, codes: tuple[Path, int] | None) -> None:
        """Let the callers call for one round."""
        rounds = self.rounds.setdefault(method, [])
        first = 0 if codes else (len(rounds) + 1) * _NEXT
        measured = await take_load(self.server, method, warm=load.warm, seconds=load.seconds, first=first, codes=codes)
        rounds.append(measured)
        if method != "ValidateCode":
            self.mails += measured["calls"]

    def rate(self, method: str) -> float:
        """Calls a second in the middle one of the rounds."""
        return median(measured["rate"] for measured in self.rounds[method])

    def part(self, other: Self, method: str) -> float:
        """Its calls a second as a part of another's, round by round, since what disturbs one disturbs its neighbour."""
        rounds = zip(self.rounds[method], other.rounds[method], strict=True)
        return median(own["rate"] / others["rate"] for own, others in rounds)

    def each(self, method: str) -> float:
        """The server's processor time for a call, in microseconds."""
        rounds = self.rounds[method]
        return sum(one["server_cpu"] for one in rounds) / sum(one["calls"] for one in rounds) * 1e6

    def row(self, method: str, alone: Self) -> dict[str, object]:
        """How it did with one method, beside the server that does nothing."""
        rounds = self.rounds[method]
        calls = sum(measured["calls"] for measured in rounds)
        return {
            "method": method,
            "server": self.name,
            "calls/s": self.rate(method),
            "of gRPC alone": self.part(alone, method),
            "p50_ms": median(measured["p50_ms"] for measured in rounds),
            "p99_ms": median(measured["p99_ms"] for measured in rounds),
            "server us/call": self.each(method),
            "callers us/call": sum(measured["cpu"] for measured in rounds) / calls * 1e6,
            "callers cores": median(measured["cores"] for measured in rounds),
        }


async def _take_turns(contenders: list[Contender], load: Round, directory: Path) -> None:
    ours = contenders[-1]
    for place in range(load.count):
        for method in _PROMISED:
            for contender in contenders:  # side by side, so that a noisy minute is everybody's
                if contender.name in (_POOL, _IN_TURNS) and method != "SendMail":
                    continue
                codes = None
                if contender is ours and method == "ValidateCode":
                    codes = directory / f"codes-{place}.json", load.codes
                    await issue(ours.server, codes[1], codes[0])
                    ours.mails += codes[1]
                await contender.take(method, load, codes)


async def test_calls_a_second(certificates: Certificates, results: Results, tmp_path: Path, *, quick: bool) -> None:
    """A call costs little more than grpc.aio does by itself, and far less than a mail on a pool of connections."""
    load = Round(1, 0.2, 0.5) if quick else Round(5, 0.5, 3.0)
    async with Contender.all(certificates) as contenders:
        await _take_turns(contenders, load, tmp_path)
    for contender in contenders:
        if contender.relay is not None:
            contender.relay.assert_took(round(contender.mails))
    alone, _, pool, ours = contenders
    results.report(
        [
            contender.row(method, alone)
            for method in _PROMISED
            for contender in contenders
            if method in contender.rounds
        ],
        *(
            Promise(
                what=f"{method}, of gRPC alone",
                # A round of half a second is at the mercy of what else runs; processor time is less so.
                figure=alone.each(method) / ours.each(method) if quick else ours.part(alone, method),
                at_least=guaranteed,
                margin=_MARGIN,
            )
            for method, guaranteed in _PROMISED.items()
        ),
        Promise(
            what="SendMail, times the pool",
            figure=ours.part(pool, "SendMail"),
            at_least=4,
            margin=4,
        ),
    )
