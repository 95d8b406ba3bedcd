"""The cost of a mail by its size, from 1 KB to 10 MB."""

from benchmarks.peers.servers import Certificates, relay, service
from benchmarks.processes import run
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

_MAILS = {1_000: 300, 10_000: 300, 100_000: 100, 1_000_000: 20, 10_000_000: 5}  # of each size
_QUICK = {1_000: 20, 100_000: 5, 1_000_000: 2}


async def test_cost_by_size(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """A mail of 10 MB takes not much longer for each octet than one of 1 MB."""
    rows: list[dict[str, object]] = []
    async with (
        relay(certificates, "--distinct") as at,
        service(at, MAIL_MAX_BYTES=16 << 20) as server,
    ):
        sent = 0.0
        for size, mails in (_QUICK if quick else _MAILS).items():
            before, relay_before = server.process.cpu, at.cpu
            arguments = ("--address", server.address, "--size", size, "--mails", mails)
            measured = await run("benchmarks.load.mail_sizes", *arguments)
            count = measured["mails"]
            sent += count
            rows.append(
                {
                    "octets": size,
                    "settings": server.settings,
                    "p50_ms": measured["p50_ms"],
                    "MB/s": size / measured["p50_ms"] / 1000,
                    "sender ms/mail": (server.process.cpu - before) / count * 1000,
                    "sender MiB": server.process.resident / (1 << 20),
                    "caller ms/mail": measured["cpu"] / count * 1000,
                    "caller cores": measured["cores"],
                    "relay ms/mail": (at.cpu - relay_before) / count * 1000,
                }
            )
    at.assert_took(round(sent))
    cost = "sender ms/mail" if quick else "p50_ms"  # the time of two mails is at the mercy of other processes
    largest, next_to_it = (float(str(row[cost])) / float(str(row["octets"])) for row in (rows[-1], rows[-2]))
    what = "time of the largest for each octet, times that of the next"
    results.report(rows, Promise(what=what, figure=largest / next_to_it, at_most=1.5))
