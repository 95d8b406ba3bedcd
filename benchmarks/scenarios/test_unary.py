"""Unary calls beside a gRPC server that only echoes, under the same load: otpmail's share on top of grpc.aio's cost.

h2load calls SendMail. SendCode and ValidateCode need another address in each request, so callers in Python make them.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Self

from benchmarks.load.callers import NO_H2LOAD, call, has_h2load, issue, send_mails
from benchmarks.peers.servers import Certificates, Relay, Server, aiosmtplib_pool, echo, relay, service
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

_OURS, _CODES_OURS, _ECHO, _POOL = "otpmail", "otpmail, codes", "gRPC alone", "aiosmtplib, a pool"
_IN_BATCHES = "gRPC alone, in batches"  # as otpmail's calls begin under load: the most that the stack allows so
_PROMISED = {"SendMail": 0.7, "SendCode": 0.6, "ValidateCode": 0.8}
_SEND_MAIL_CPU = 1.4  # times the echo's
_TAKES_PART = {
    "SendMail": (_ECHO, _IN_BATCHES, _POOL, _OURS),
    "SendCode": (_ECHO, _CODES_OURS),
    "ValidateCode": (_ECHO, _CODES_OURS),
}
_CODES_SETTINGS: dict[str, object] = {"OTP_RETURN_CODE": "true", "OTP_LIFESPAN_SECONDS": 3600}
_CODES_A_SECOND = 8000  # more than are validated: when they run out a round ends early
_NEXT = 1_000_000  # between the first numbers of two rounds
_MARGIN = 3.0  # of a quick run, whose rounds of half a second are easily disturbed


@dataclass(frozen=True, slots=True)
class Load:
    """How often all servers are started, how many rounds each start has, and how long each is, in seconds."""

    starts: int
    rounds: int
    warm: float
    seconds: float

    @property
    def codes(self) -> int:
        """How many codes one round may validate."""
        return round((self.warm + self.seconds) * _CODES_A_SECOND)


@dataclass(slots=True)
class Contender:
    """A server, and the figures of each round by method. `relay` is None for those that only echo."""

    name: str
    server: Server
    relay: Relay | None
    rounds: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    mails: float = 0

    @classmethod
    @asynccontextmanager
    async def start_all(cls, certificates: Certificates) -> AsyncIterator[dict[str, Self]]:
        """Start all contenders, each with a relay of its own, but for those that only echo."""
        async with AsyncExitStack() as stack:
            contenders = [
                cls(_ECHO, await stack.enter_async_context(echo(0)), None),
                cls(_IN_BATCHES, await stack.enter_async_context(echo(0, "--batching")), None),
            ]
            for name, start in (
                (_POOL, aiosmtplib_pool),
                (_OURS, service),
                (_CODES_OURS, lambda at: service(at, **_CODES_SETTINGS)),
            ):
                at = await stack.enter_async_context(relay(certificates, "--distinct"))
                contenders.append(cls(name, await stack.enter_async_context(start(at)), at))
            yield {contender.name: contender for contender in contenders}

    async def take(self, method: str, load: Load, directory: Path) -> None:
        """Take the load of one round."""
        rounds = self.rounds.setdefault(method, [])
        if method == "SendMail":
            measured = await send_mails(self.server, warm=load.warm, seconds=load.seconds)
        else:
            codes, first = None, (len(rounds) + 1) * _NEXT
            if method == "ValidateCode" and self.relay:
                first = len(rounds) * load.codes  # an address has no further code so soon
                codes = await self._issue(load, directory, first)
            measured = await call(self.server, method, warm=load.warm, seconds=load.seconds, first=first, codes=codes)
        rounds.append(measured)
        if method != "ValidateCode":
            self.mails += measured["calls"]

    async def _issue(self, load: Load, directory: Path, first: int) -> tuple[Path, int]:
        """Have the codes mailed that one round validates."""
        codes = directory / "codes.json", load.codes
        await issue(self.server, codes[1], codes[0], first=first)
        self.mails += codes[1]
        return codes

    def add(self, later: Self) -> None:
        """Add the rounds of a later start."""
        for method, rounds in later.rounds.items():
            self.rounds[method] += rounds

    def part(self, other: Self, method: str) -> float:
        """Its calls a second as a part of another's, round by round, since a disturbance meets neighbours alike."""
        rounds = zip(self.rounds[method], other.rounds[method], strict=True)
        return median(own["rate"] / others["rate"] for own, others in rounds)

    def cpu(self, method: str) -> float:
        """The server's processor time for a call, in microseconds."""
        return self._each(method, "server_cpu")

    def _each(self, method: str, figure: str) -> float:
        rounds = self.rounds[method]
        return sum(one[figure] for one in rounds) / sum(one["calls"] for one in rounds) * 1e6

    def row(self, method: str, alone: Self) -> dict[str, object]:
        """Its figures with one method, beside the server that only echoes."""
        middle = {
            name: median(measured[name] for measured in self.rounds[method])
            for name in ("rate", "p50_ms", "p99_ms", "cores")
        }
        return {
            "method": method,
            "server": self.name.removesuffix(", codes"),
            "settings": self.server.settings,
            "calls/s": middle["rate"],
            "of gRPC alone": self.part(alone, method),
            "p50_ms": middle["p50_ms"],
            "p99_ms": middle["p99_ms"],
            "server us/call": self.cpu(method),
            "times gRPC alone": self.cpu(method) / alone.cpu(method),
            "callers us/call": self._each(method, "cpu"),
            "callers cores": middle["cores"],
        }


def _promises(contenders: dict[str, Contender], methods: list[str], *, quick: bool) -> list[Promise]:
    alone = contenders[_ECHO]
    promises = []
    for method in methods:
        ours = contenders[_TAKES_PART[method][-1]]
        # A quick round is at the mercy of other processes; processor time is less so.
        figure = alone.cpu(method) / ours.cpu(method) if quick else ours.part(alone, method)
        promises.append(
            Promise(what=f"{method}, of gRPC alone", figure=figure, at_least=_PROMISED[method], margin=_MARGIN)
        )
    if "SendMail" in methods:
        ours = contenders[_OURS]
        times = ours.cpu("SendMail") / alone.cpu("SendMail")
        promises += [
            Promise(what="SendMail, CPU times gRPC alone's", figure=times, at_most=_SEND_MAIL_CPU, margin=_MARGIN),
            Promise(
                what="SendMail, times the pool", figure=ours.part(contenders[_POOL], "SendMail"), at_least=4, margin=4
            ),
        ]
    return promises


async def _start_and_take(
    certificates: Certificates, methods: list[str], load: Load, directory: Path
) -> dict[str, Contender]:
    """Start all contenders, let them take their rounds by turns, and check what the relays took."""
    async with Contender.start_all(certificates) as contenders:
        for turn in range(load.rounds):
            for method in methods:
                order = _TAKES_PART[method]
                for name in reversed(order) if turn % 2 else order:  # so that none always follows the same other one
                    await contenders[name].take(method, load, directory)
    for contender in contenders.values():
        if contender.relay is not None:
            contender.relay.assert_took(round(contender.mails))
    return contenders


async def test_calls_a_second(certificates: Certificates, results: Results, tmp_path: Path, *, quick: bool) -> None:
    """A call costs little more than grpc.aio does by itself, and far less than a mail on a pool of connections."""
    load = Load(1, 1, 0.2, 0.5) if quick else Load(4, 2, 0.5, 2.0)
    methods = [method for method in _PROMISED if method != "SendMail" or has_h2load()]
    contenders: dict[str, Contender] = {}
    for _ in range(load.starts):
        for name, contender in (await _start_and_take(certificates, methods, load, tmp_path)).items():
            if name in contenders:
                contenders[name].add(contender)
            else:
                contenders[name] = contender
    alone = contenders[_ECHO]
    results.report(
        [contenders[name].row(method, alone) for method in methods for name in _TAKES_PART[method]],
        *_promises(contenders, methods, quick=quick),
        note="" if has_h2load() else NO_H2LOAD,
    )
