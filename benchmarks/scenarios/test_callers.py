"""Calls with tokens and limits beside calls of nobody in particular and without limits over many addresses.

Two services ask nobody. The second one shows how far services that are alike differ, and so what the ratios are worth.
Processes that are alike differ by 5 % from one start to the next. The services therefore start anew several times.
"""

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
_ALIKE = 0.02  # how far services that are alike may differ
_NONE, _ALSO_NONE, _ASKING = "none", "none, a second service", "by token, with limits"
_SETTINGS: dict[str, object] = {"OTP_RETURN_CODE": "true"}
_MARGIN = 1.5  # of a quick run, which takes few turns: 0.76 was measured on a busy machine

Turns = list[dict[str, float]]


@asynccontextmanager
async def _services(certificates: Certificates, directory: Path) -> AsyncIterator[dict[str, Server]]:
    """Start the services, each with a relay of its own."""
    file = directory / "callers.toml"
    token = write_callers(file)
    async with AsyncExitStack() as stack:
        relays = [await stack.enter_async_context(relay(certificates, "--distinct")) for _ in range(3)]
        without, also = [await stack.enter_async_context(service(own, **_SETTINGS)) for own in relays[:2]]
        asking = await stack.enter_async_context(service(relays[2], **_SETTINGS, **LIMITS, CALLERS_FILE=file))
        limits = " ".join(f"{name}={value}" for name, value in LIMITS.items())
        settings = f"{without.settings} {limits} CALLERS_FILE={file.name}"
        asking = Server(asking.process, asking.address, settings, token)
        yield {_NONE: without, _ALSO_NONE: also, _ASKING: asking}


def _part(without: Turns, other: Turns, figure: str) -> float:
    """How much of a figure the service without asking takes of another one, turn by turn."""
    return median(one[figure] / its[figure] for one, its in zip(without, other, strict=True))


def _promises(method: str, cpu: dict[str, float], time: dict[str, float], *, quick: bool) -> list[Promise]:
    what = f"{method}, calls for the same CPU"
    promises = [
        Promise(what=f"{what}, with tokens and limits", figure=cpu[_ASKING], at_least=_PROMISED, margin=_MARGIN)
    ]
    if not quick:  # the rates, and the noise, of a few turns are at the mercy of other processes
        rate = Promise(what=f"{method}, rate with tokens and limits", figure=time[_ASKING], at_least=_PROMISED)
        apart = abs(cpu[_ALSO_NONE] - 1)
        promises += [rate, Promise(what=f"{what}, how far services alike differ", figure=apart, at_most=_ALIKE)]
    return promises


async def test_the_cost_of_tokens_and_limits(
    certificates: Certificates, results: Results, tmp_path: Path, *, quick: bool
) -> None:
    """A service that asks who calls, and counts for all limits, takes little more processor time for a call."""
    starts, turns, calls = (1, 3, 150) if quick else (12, 3, 1000)
    figures: dict[str, dict[str, Turns]] = {}
    for _ in range(starts):
        async with _services(certificates, tmp_path) as servers:
            taken = await take_turns(list(servers.values()), turns=turns, calls=calls)
        for name, by_method in zip(servers, taken, strict=True):
            for method, its in by_method.items():
                figures.setdefault(name, {}).setdefault(method, []).extend(its)
    rows: list[dict[str, object]] = []
    promises: list[Promise] = []
    for method, without in figures[_NONE].items():
        cpu, time = (
            {name: _part(without, own[method], figure) for name, own in figures.items()} for figure in ("cpu", "time")
        )
        for name, server in servers.items():
            own = figures[name][method]
            rows.append(
                {
                    "method": method,
                    "callers": name,
                    "settings": server.settings,
                    "calls/s": 1e6 / median(turn["time"] for turn in own),
                    "of those without": time[name],
                    "server us/call": median(turn["cpu"] for turn in own),
                    "calls for the same CPU": cpu[name],
                }
            )
        promises += _promises(method, cpu, time, quick=quick)
    note = "" if has_h2load() else NO_H2LOAD.replace("skipped", "SendMail by callers in Python")
    results.report(rows, *promises, note=note)
