"""The original project's table: the mean time of a request, with 15 concurrent callers and 1 to 10 workers."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from benchmarks.peers.servers import Certificates, Relay, Server, aiosmtplib_connect, aiosmtplib_pool, relay, service
from benchmarks.processes import run
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

CALLERS = 15
_WORKERS = (1, 2, 5, 10)
_RELAYS: dict[str, tuple[object, ...]] = {
    "0 ms away": (),
    "20 ms away": ("--rtt", 20),
    "100 ms away": ("--rtt", 100),
    "takes 300 ms a mail": ("--accept", 300),
}
_CONTENDERS: dict[str, Callable[[Relay, int], AbstractAsyncContextManager[Server]]] = {
    "a connection for each mail": aiosmtplib_connect,
    "aiosmtplib, a pool": aiosmtplib_pool,
    "otpmail": lambda at, workers: service(at, WORKERS=workers),
}


async def _measure(
    certificates: Certificates, contender: str, relay_is: str, workers: int, seconds: float
) -> dict[str, object]:
    """Measure one cell of the table."""
    async with (
        relay(certificates, "--distinct", *_RELAYS[relay_is]) as at,
        _CONTENDERS[contender](at, workers) as server,
    ):
        measured = await run(
            "benchmarks.load.mean_time", "--address", server.address, "--callers", CALLERS, "--seconds", seconds
        )
    at.assert_took(round(measured["calls"]))
    return {
        "sender": contender,
        "relay": relay_is,
        "workers": workers,
        "settings": server.settings,
        "mean_ms": measured["mean_ms"],
        "callers cores": measured["cores"],
    }


async def test_mean_time_of_a_request(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """A caller waits no longer than with the pool in any cell; where the relay is slow, all wait alike."""
    relays, workers, seconds = (("20 ms away",), (5,), 0.3) if quick else (tuple(_RELAYS), _WORKERS, 2.0)
    rows = [
        await _measure(certificates, contender, relay_is, count, seconds)
        for relay_is in relays
        for count in workers
        for contender in _CONTENDERS  # by turns, so that a noisy minute disturbs all alike
    ]
    mean = {(row["sender"], row["relay"], row["workers"]): float(str(row["mean_ms"])) for row in rows}

    def times(other: str, relay_is: str, count: int) -> float:
        return mean[other, relay_is, count] / mean["otpmail", relay_is, count]

    worst = min(times("aiosmtplib, a pool", relay_is, count) for relay_is in relays for count in workers)
    results.report(
        rows,
        Promise(what="times less than the pool, in the worst cell", figure=worst, at_least=0.9, margin=1.2),
        Promise(
            what="times less than a connection for each mail, 20 ms away, 5 workers",
            figure=times("a connection for each mail", "20 ms away", 5),
            at_least=10,
        ),
    )
