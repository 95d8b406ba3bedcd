"""Calls with tokens and limits beside calls of nobody in particular and without limits over many addresses."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Self

from benchmarks.load.callers import NO_H2LOAD, call, has_h2load, issue, send_mails
from benchmarks.peers.servers import Certificates, Server, relay, service
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

_PROMISED = 0.9
_CALLERS = 100  # in the file; one of them calls
# Without a wait, since each round issues the codes that it validates to the same addresses.
_SETTINGS: dict[str, object] = {"OTP_RETURN_CODE": "true", "OTP_LIFESPAN_SECONDS": 3600, "OTP_RESEND_SECONDS": 0}
_CODES_A_SECOND = 8000  # more than are validated
_MARGIN = 10.0  # of a quick run: in half a second a busy machine makes so few calls that they tell little
_NEXT = 1_000_000  # between the first numbers of two rounds
_MOST = 10_000_000  # what a limit may be at the most: each counts, and none refuses
_LIMITS: dict[str, object] = {
    "OTP_SENDS_PER_CALLER_HOUR": _MOST,
    "OTP_SENDS_PER_SERVICE_HOUR": _MOST,
    "OTP_FAILURES_PER_CALLER_HOUR": _MOST,
}


@dataclass(slots=True)
class Side:
    """A service, and its figures in each round, by method."""

    name: str
    server: Server
    rounds: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    async def take(self, method: str, warm: float, seconds: float, directory: Path) -> None:
        """Take the load of one round."""
        rounds = self.rounds.setdefault(method, [])
        if method == "SendMail" and has_h2load():
            rounds.append(await send_mails(self.server, warm=warm, seconds=seconds))
            return
        codes = None
        if method == "ValidateCode":
            codes = directory / "codes.json", round((warm + seconds) * _CODES_A_SECOND)
            await issue(self.server, codes[1], codes[0])
        first = 0 if codes else (len(rounds) + 1) * _NEXT
        rounds.append(await call(self.server, method, warm=warm, seconds=seconds, first=first, codes=codes))

    def part(self, other: Self, method: str) -> float:
        """Its calls a second as a part of another's, round by round, since a disturbance meets neighbours alike."""
        rounds = zip(self.rounds[method], other.rounds[method], strict=True)
        return median(own["rate"] / others["rate"] for own, others in rounds)

    def cpu(self, method: str) -> float:
        """The service's processor time for a call, in microseconds, of the round in which it is least."""
        return min(one["server_cpu"] / one["calls"] for one in self.rounds[method]) * 1e6

    def row(self, method: str, without: Self) -> dict[str, object]:
        """Its figures with one method, beside those of the service without the file."""
        return {
            "method": method,
            "callers": self.name,
            "settings": self.server.settings,
            "calls/s": median(one["rate"] for one in self.rounds[method]),
            "of those without": self.part(without, method),
            "server us/call": self.cpu(method),
            "p50_ms": median(one["p50_ms"] for one in self.rounds[method]),
            "callers cores": median(one["cores"] for one in self.rounds[method]),
        }


def _write_file(path: Path) -> str:
    """Write a file of callers, and return the token of one of them."""
    tokens = [f"otpmail_{sha256(b'%d' % number).hexdigest()}" for number in range(_CALLERS)]
    path.write_text(
        "".join(
            f'[callers.c{number}]\ntokens = ["{sha256(token.encode()).hexdigest()}"]\n'
            'methods = ["mail.MailService", "otpmail.v1.OtpService"]\n'
            f"codes_per_hour = {_MOST}\nmails_per_hour = {_MOST}\nmails_per_day = {_MOST}\n"
            for number, token in enumerate(tokens)
        ),
        encoding="utf-8",
    )
    return tokens[-1]


@asynccontextmanager
async def _sides(certificates: Certificates, directory: Path) -> AsyncIterator[tuple[Side, Side]]:
    """Start both services, each with a relay of its own."""
    file = directory / "callers.toml"
    token = _write_file(file)
    async with AsyncExitStack() as stack:
        relays = [await stack.enter_async_context(relay(certificates, "--distinct")) for _ in range(2)]
        without = await stack.enter_async_context(service(relays[0], **_SETTINGS))
        asking = await stack.enter_async_context(service(relays[1], **_SETTINGS, **_LIMITS, CALLERS_FILE=file))
        limits = " ".join(f"{name}={value}" for name, value in _LIMITS.items())
        settings = f"{without.settings} {limits} CALLERS_FILE={file.name}"
        yield Side("none", without), Side("by token, with limits", replace(asking, token=token, settings=settings))


async def test_the_cost_of_tokens_and_limits(
    certificates: Certificates, results: Results, tmp_path: Path, *, quick: bool
) -> None:
    """A service that asks who calls, and counts for all limits, carries nearly as many calls as one that does not."""
    warm, seconds, rounds = (0.2, 0.5, 2) if quick else (0.5, 3.0, 5)
    methods = ("SendMail", "SendCode", "ValidateCode")
    async with _sides(certificates, tmp_path) as (without, asking):
        for place in range(rounds):
            for method in methods:
                for side in (without, asking) if place % 2 else (asking, without):
                    await side.take(method, warm, seconds, tmp_path)
        promises = []
        for method in methods:
            cpu, rate = without.cpu(method) / asking.cpu(method), asking.part(without, method)
            what = f"{method}, CPU without tokens and limits beside with"
            promises.append(Promise(what=what, figure=cpu, at_least=_PROMISED, margin=_MARGIN))
            if not quick:  # a quick round is at the mercy of other processes
                promises.append(Promise(what=f"{method}, rate with tokens and limits", figure=rate, at_least=_PROMISED))
        results.report(
            [side.row(method, without) for method in methods for side in (without, asking)],
            *promises,
            note="" if has_h2load() else NO_H2LOAD.replace("skipped", "SendMail by callers in Python"),
        )
