"""Calls with tokens and limits beside calls of nobody in particular and without limits over many addresses."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median

from benchmarks.load.callers import NO_H2LOAD, has_h2load, take_turns
from benchmarks.peers.asking import LIMITS, write_callers
from benchmarks.peers.servers import Certificates, Server, relay, service
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

_PROMISED = 0.9
_NONE, _ASKING = "none", "by token, with limits"
_SETTINGS: dict[str, object] = {"OTP_RETURN_CODE": "true"}
_MARGIN = 1.2  # of a quick run, which takes few turns

Turns = list[dict[str, float]]


@asynccontextmanager
async def _services(certificates: Certificates, directory: Path) -> AsyncIterator[tuple[Server, Server]]:
    """Start both services, each with a relay of its own."""
    file = directory / "callers.toml"
    token = write_callers(file)
    async with AsyncExitStack() as stack:
        relays = [await stack.enter_async_context(relay(certificates, "--distinct")) for _ in range(2)]
        without = await stack.enter_async_context(service(relays[0], **_SETTINGS))
        asking = await stack.enter_async_context(service(relays[1], **_SETTINGS, **LIMITS, CALLERS_FILE=file))
        limits = " ".join(f"{name}={value}" for name, value in LIMITS.items())
        settings = f"{without.settings} {limits} CALLERS_FILE={file.name}"
        yield without, Server(asking.process, asking.address, settings, token)


def _part(without: Turns, asking: Turns, figure: str) -> float:
    """How much of a figure the service without asking takes of one that asks, turn by turn."""
    return median(one[figure] / other[figure] for one, other in zip(without, asking, strict=True))


async def test_the_cost_of_tokens_and_limits(
    certificates: Certificates, results: Results, tmp_path: Path, *, quick: bool
) -> None:
    """A service that asks who calls, and counts for all limits, takes little more processor time for a call."""
    turns, calls = (12, 150) if quick else (60, 1000)
    async with _services(certificates, tmp_path) as servers:
        figures = await take_turns(servers, turns=turns, calls=calls)
    rows, promises = [], []
    for method, without in figures[0].items():
        asking = figures[1][method]
        part, rate = _part(without, asking, "cpu"), _part(without, asking, "time")
        for name, server, own in ((_NONE, servers[0], without), (_ASKING, servers[1], asking)):
            rows.append(
                {
                    "method": method,
                    "callers": name,
                    "settings": server.settings,
                    "calls/s": 1e6 / median(turn["time"] for turn in own),
                    "of those without": 1.0 if own is without else rate,
                    "server us/call": median(turn["cpu"] for turn in own),
                    "calls for the same CPU": 1.0 if own is without else part,
                }
            )
        what = f"{method}, calls for the same CPU, with tokens and limits"
        promises.append(Promise(what=what, figure=part, at_least=_PROMISED, margin=_MARGIN))
        if not quick:  # the rate of a few turns is at the mercy of other processes
            what = f"{method}, rate with tokens and limits"
            promises.append(Promise(what=what, figure=rate, at_least=_PROMISED))
    note = "" if has_h2load() else NO_H2LOAD.replace("skipped", "SendMail by callers in Python")
    results.report(rows, *promises, note=note)
