"""Memory, tasks and open files under mixed load for minutes, with a relay that refuses mails and says 421."""

from statistics import mean
from typing import Any

from benchmarks.peers.servers import Certificates, adjusted_service, relay
from benchmarks.processes import Process
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

_SETTINGS: dict[str, object] = {
    "EMAIL_MAX_MESSAGES": 500,  # so that connections are replaced all the time
    "EMAIL_RETRY_SECONDS": 0.1,
    "MAIL_REMEMBER_COUNT": 2000,  # so that the memory of request ids is full before the first quarter ends
    "OTP_RESEND_SECONDS": 0,
    "OTP_LIFESPAN_SECONDS": 30,
    "OTP_CLEANUP_SECONDS": 5,
    "OTP_RETURN_CODE": "true",
}
_RELAY = ("--rtt", 5, "--refuse-every", 97, "--close-every", 1009)
_SLICES = 12  # rows of the table
_WARM_PART = 1 / 6
_STATE = ("resident", "tasks", "files")


async def _watch(service: Process, load: Process, seconds: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The states that the service reported while the load ran, and the outcomes of the calls."""
    states = [await service.line(resident=...)]
    while states[-1]["at"] < states[0]["at"] + seconds - 1:
        states.append(await service.line(resident=...))
    return states, await load.line(outcomes=...)


async def test_nothing_grows(certificates: Certificates, results: Results, *, soak: float) -> None:
    """The service holds no more in the last quarter of the time than in the first one after the warm-up."""
    every = min(1.0, soak / 60)
    async with (
        relay(certificates, *_RELAY) as at,
        adjusted_service(at, "--report", every, **_SETTINGS) as service,
    ):
        async with Process("benchmarks.load.mixed", "--address", service.address, "--seconds", soak) as load:
            states, ended = await _watch(service.process, load, soak)
        cpu = service.process.cpu
    assert at.counts["errors"] == 0, at.counts["first_error"]
    rows = [_row(states, place / _SLICES, (place + 1) / _SLICES) for place in range(_SLICES)]
    counted = ended["outcomes"] | {"relay refused": at.counts["refused"], "relay said 421": at.counts["closed"]}
    first, last = _row(states, _WARM_PART, _WARM_PART + (1 - _WARM_PART) / 4), _row(states, 1 - (1 - _WARM_PART) / 4, 1)
    beside = {"callers cores": ended["cores"], "sender cores": cpu / soak}
    results.report(
        [row | beside for row in rows],
        Promise(what="resident memory, last quarter to first", figure=_ratio(last, first, "MiB"), at_most=1.03),
        Promise(what="tasks more in the last quarter", figure=last["tasks"] - first["tasks"], at_most=3, margin=10),
        Promise(what="open files more in the last quarter", figure=last["files"] - first["files"], at_most=2, margin=5),
        note=", ".join(f"{count:,} {what}" for what, count in counted.items()) + f"\n{service.settings}",
    )


def _ratio(last: dict[str, float], first: dict[str, float], figure: str) -> float:
    return last[figure] / first[figure] if first[figure] else 1.0


def _row(states: list[dict[str, Any]], begin: float, end: float) -> dict[str, float]:
    """The means of a part of the time."""
    whole = states[-1]["at"] - states[0]["at"]
    part = [one for one in states if begin <= (one["at"] - states[0]["at"]) / whole <= end]
    # A service that stood still all the while had the state of before.
    part = part or [one for one in states if (one["at"] - states[0]["at"]) / whole < begin][-1:]
    means = {name: mean(one[name] for one in part) for name in _STATE}
    return {
        "until s": whole * end,
        "MiB": means["resident"] / (1 << 20),
        "tasks": means["tasks"],
        "files": means["files"],
    }
