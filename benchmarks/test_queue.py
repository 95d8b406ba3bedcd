"""How long it takes to accept a mail, from an empty queue to a full one."""

from benchmarks.processes import Certificates, relay, run, service
from benchmarks.results import Promise, Results

_NEVER_MS = 3_600_000  # the relay takes that long over each mail, so that none leaves


async def test_accepting_by_how_many_wait(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """A place in a long queue is had as fast as one in a short queue, and one that is full says so at once."""
    size, parts = (500, 5) if quick else (10_000, 10)
    async with (
        relay(certificates, "--accept", _NEVER_MS) as at,
        service(at, QUEUE_SIZE=size) as server,
    ):
        empty = server.process.resident
        measured = await run("benchmarks.queue_depth", "--address", server.address, "--size", size, "--parts", parts)
        each = (server.process.resident - empty) / size
    assert measured["accepted"] == size
    full: dict[str, object] = {"waiting": "full: refused", "p50_ms": measured["refused_ms"], "p99_ms": ""}
    beside = {"sender KiB/mail": each / 1024, "caller cores": measured["cores"]}
    first, last = measured["rows"][0], measured["rows"][-1]
    results.report(
        [row | beside for row in (*measured["rows"], full)],
        Promise(
            what="accepting into the last tenth, times the first",
            figure=last["p50_ms"] / first["p50_ms"],
            at_most=1.2,
        ),
    )
