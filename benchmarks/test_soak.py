"""Whether memory, tasks and open files stay what they are under mixed load for minutes; the relay misbehaves."""

from statistics import mean
from typing import Any

from benchmarks.processes import Certificates, Process, relay
from benchmarks.results import Promise, Results

_SETTINGS: dict[str, object] = {
    "HOST": "127.0.0.1",
    "PORT": 0,
    "LOG_FORMAT": "json",
    "EMAIL_MAX_MESSAGES": 500,  # connections are replaced all the time
    "EMAIL_RETRY_SECONDS": 0.1,
    "MAIL_REMEMBER_COUNT": 2000,  # what is remembered is full before anything is compared
    "OTP_RESEND_SECONDS": 0,
    "OTP_LIFESPAN_SECONDS": 30,
    "OTP_CLEANUP_SECONDS": 5,
    "OTP_RETURN_CODE": "true",
}
_RELAY = ("--rtt", 5, "--refuse-every", 97, "--close-every", 1009)
_SLICES = 12  # rows of the table
_WARM_PART = 1 / 6
_HELD = ("resident", "tasks", "files")


async def _watch(service: Process, load: Process, seconds: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What the service held while the load ran, and how the calls ended."""
    held = [await service.said(resident=...)]
    while held[-1]["at"] < held[0]["at"] + seconds - 1:
        held.append(await service.said(resident=...))
    return held, await load.said(ended=...)


async def test_nothing_grows(certificates: Certificates, results: Results, *, soak: float) -> None:
    """The last quarter of the time holds no more than the first one behind the warm-up."""
    every = min(1.0, soak / 60)
    async with (
        relay(certificates, *_RELAY) as at,
        Process("benchmarks.watched", "--every", every, **(at.settings | _SETTINGS)) as service,
    ):
        address = (await service.said(event="listening"))["address"]
        await service.said(event="relay-up")
        async with Process("benchmarks.mixed_load", "--address", address, "--seconds", soak) as load:
            held, ended = await _watch(service, load, soak)
        cpu = service.cpu
    assert at.counts["errors"] == 0, at.counts["first_error"]
    rows = [_row(held, place / _SLICES, (place + 1) / _SLICES) for place in range(_SLICES)]
    counted = ended["ended"] | {"relay refused": at.counts["refused"], "relay left": at.counts["closed"]}
    first, last = _row(held, _WARM_PART, _WARM_PART + (1 - _WARM_PART) / 4), _row(held, 1 - (1 - _WARM_PART) / 4, 1)
    beside = {"callers cores": ended["cores"], "sender cores": cpu / soak}
    results.report(
        [row | beside for row in rows],
        Promise(what="resident memory, last quarter to first", figure=_ratio(last, first, "MiB"), at_most=1.03),
        Promise(what="tasks more in the last quarter", figure=last["tasks"] - first["tasks"], at_most=3, margin=10),
        Promise(what="open files more in the last quarter", figure=last["files"] - first["files"], at_most=2, margin=5),
        note=", ".join(f"{count:,} {what}" for what, count in counted.items()),
    )


def _ratio(last: dict[str, float], first: dict[str, float], what: str) -> float:
    return last[what] / first[what] if first[what] else 1.0


def _row(held: list[dict[str, Any]], begin: float, end: float) -> dict[str, float]:
    """The means of a part of the time."""
    whole = held[-1]["at"] - held[0]["at"]
    part = [one for one in held if begin <= (one["at"] - held[0]["at"]) / whole <= end]
    means = {name: mean(one[name] for one in part) for name in _HELD}
    return {
        "until s": whole * end,
        "MiB": means["resident"] / (1 << 20),
        "tasks": means["tasks"],
        "files": means["files"],
    }
