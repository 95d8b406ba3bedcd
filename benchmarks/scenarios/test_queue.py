"""The time to accept a mail, from an empty queue to one with no place left for normal mails."""

from benchmarks.peers.servers import Certificates, relay, service
from benchmarks.processes import run
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

_HOUR_MS = 3_600_000  # the relay takes that long over each mail, so that the queue only grows


async def test_accepting_by_how_many_wait(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """Accepting a mail takes no longer in a long queue than in a short one, and a full queue refuses at once."""
    size, parts = (500, 5) if quick else (10_000, 10)  # the latter is what ships
    async with (
        relay(certificates, "--accept", _HOUR_MS) as at,
        service(at, **({"QUEUE_SIZE": size} if quick else {})) as server,
    ):
        empty = server.process.resident
        arguments = ("--address", server.address, "--size", size, "--parts", parts)
        measured = await run("benchmarks.load.queue_depth", *arguments)
        each = (server.process.resident - empty) / measured["accepted"]
    assert measured["accepted"] == size - size // 10  # the last tenth is for urgent mails
    full: dict[str, object] = {"waiting": "full: refused", "p50_ms": measured["refused_ms"], "p99_ms": ""}
    beside = {"settings": server.settings, "sender KiB/mail": each / 1024, "caller cores": measured["cores"]}
    # A part of a quick run takes 50 ms, and is at the mercy of other processes; its quickest mail is less so.
    times = measured["shortest_ms"] if quick else [row["p50_ms"] for row in measured["rows"]]
    results.report(
        [row | beside for row in (*measured["rows"], full)],
        Promise(
            what="accepting into the last tenth, times the first",
            figure=times[-1] / times[0],
            at_most=1.2,
            margin=3,
        ),
    )
