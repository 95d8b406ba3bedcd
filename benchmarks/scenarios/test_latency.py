"""The latency of one mail at a time, on warm connections, in round trips to the relay."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from benchmarks.peers.servers import Certificates, Relay, Server, aiosmtplib_pool, relay, service
from benchmarks.processes import run
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

ROUND_TRIP_MS = 20
_LONG_ROUND_TRIP_MS = 60  # of a quick run: what a slow machine adds to a mail is little beside it
_MARGIN = 1.4  # of a quick run: a round trip too many is still outside

Contender = Callable[[Relay], AbstractAsyncContextManager[Server]]


async def _measure(
    certificates: Certificates, contender: Contender, hidden: tuple[str, ...], *, quick: bool
) -> dict[str, Any]:
    hide = [argument for keyword in hidden for argument in ("--hide", keyword)]
    mails, round_trip = (20, _LONG_ROUND_TRIP_MS) if quick else (300, ROUND_TRIP_MS)
    async with relay(certificates, "--rtt", round_trip, "--distinct", *hide) as at, contender(at) as server:
        arguments = ("--address", server.address, *at.arguments, "--mails", mails)
        measured = await run("benchmarks.load.one_at_a_time", *arguments) | {"settings": server.settings}
    at.assert_took(round(measured["calls"]))
    return measured


async def test_round_trips_of_one_mail(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """A mail takes one round trip with CHUNKING and two with PIPELINING alone, and little more."""
    rows: list[dict[str, object]] = []
    round_trips = {}
    for relay_has, hidden in (("CHUNKING", ()), ("PIPELINING", ("CHUNKING",)), ("neither", ("CHUNKING", "PIPELINING"))):
        measured = await _measure(certificates, service, hidden, quick=quick)
        # The few mails of a quick run are at the mercy of other processes; the quickest of them is less so.
        mail, ping = ("shortest_ms", "shortest_ping_ms") if quick else ("p50_ms", "ping_ms")
        round_trips[relay_has] = measured[mail] / measured[ping]
        rows.append(_row("otpmail", relay_has, measured))
    rows.append(_row("aiosmtplib, a pool", "CHUNKING", await _measure(certificates, aiosmtplib_pool, (), quick=quick)))
    results.report(
        rows,
        Promise(what="round trips, CHUNKING", figure=round_trips["CHUNKING"], at_most=1.15, margin=_MARGIN),
        Promise(what="round trips, PIPELINING", figure=round_trips["PIPELINING"], at_most=2.15, margin=_MARGIN),
    )


def _row(sender: str, relay_has: str, measured: dict[str, Any]) -> dict[str, object]:
    figures = {name: measured[name] for name in ("settings", "ping_ms", "p50_ms", "p99_ms")}
    trips = measured["p50_ms"] / measured["ping_ms"]
    return {"sender": sender, "relay has": relay_has, **figures, "round trips": trips}
