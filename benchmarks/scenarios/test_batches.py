"""`SendMails` by the size of its batches, beside unary calls to a pool of aiosmtplib's connections, and gRPC alone."""

from statistics import median

from benchmarks.load.callers import NO_H2LOAD, has_h2load, send_batches, send_mails
from benchmarks.peers.servers import Certificates, Server, aiosmtplib_pool, echo, relay, service
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

_SIZES = (1, 10, 1000)
_SIZE = 100  # the one with promises


async def test_mails_a_second_by_batch(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """Batches save the cost of a call: the cost of the mail remains."""
    warm, seconds, rounds = (0.3, 0.7, 1) if quick else (1.0, 4.0, 3)
    rows: list[dict[str, object]] = []
    async with (
        relay(certificates, "--distinct") as at,
        service(at) as server,
        relay(certificates, "--distinct") as pools,
        aiosmtplib_pool(pools) as pool,
        echo(0) as alone,
    ):
        sent = 0.0
        batches: list[dict[str, float]] = []
        singles: list[dict[str, float]] = []
        before = at.cpu, pools.cpu
        for place in range(rounds):  # by turns, so that a noisy minute disturbs both alike
            batches.append(await send_batches(server, name=f"round-{place}", batch=_SIZE, warm=warm, seconds=seconds))
            if has_h2load():
                singles.append(await send_mails(pool, warm=warm, seconds=seconds))
        rows.append(_row("otpmail", server, _SIZE, batches, at.cpu - before[0]))
        pool_rows = [_row("aiosmtplib, a pool, unary", pool, "", singles, pools.cpu - before[1])] if singles else []
        sent += sum(measured["calls"] for measured in batches)
        for size in () if quick else _SIZES:
            cpu = at.cpu
            measured = await send_batches(server, name=f"batch-{size}", batch=size, warm=warm, seconds=seconds)
            sent += measured["calls"]
            rows.append(_row("otpmail", server, size, [measured], at.cpu - cpu))
        bare = await send_batches(alone, name="alone", batch=_SIZE, warm=warm, seconds=seconds)
    at.assert_took(round(sent))
    pools.assert_took(round(sum(single["calls"] for single in singles)))
    rows.sort(key=lambda row: int(str(row["batch"])))
    results.report(
        [*rows, _row("gRPC alone, batches of 100", alone, "", [bare], 0.0), *pool_rows],
        Promise(
            what="thousand mails/s in batches of 100",
            figure=median(measured["rate"] for measured in batches) / 1000,
            at_least=20,
            timed=True,
        ),
        *_beside_the_pool(batches, singles),
        note="" if singles else NO_H2LOAD,
    )


def _beside_the_pool(batches: list[dict[str, float]], singles: list[dict[str, float]]) -> list[Promise]:
    if not singles:
        return []
    times = median(ours["rate"] / theirs["rate"] for ours, theirs in zip(batches, singles, strict=True))
    return [Promise(what="times the pool, batches of 100", figure=times, at_least=35, margin=7)]


def _row(
    sender: str, server: Server, batch: object, rounds: list[dict[str, float]], relay_cpu: float
) -> dict[str, object]:
    calls = sum(measured["calls"] for measured in rounds)
    each = {name: sum(measured[name] for measured in rounds) / calls * 1e6 for name in ("server_cpu", "cpu")}
    middle = {name: median(measured[name] for measured in rounds) for name in ("rate", "p50_ms", "p99_ms", "cores")}
    return {
        "sender": sender,
        "settings": server.settings,
        "batch": batch,
        "mails/s": middle["rate"],
        "p50_ms": middle["p50_ms"],
        "p99_ms": middle["p99_ms"],
        "sender us/mail": each["server_cpu"],
        "callers us/mail": each["cpu"],
        "callers cores": middle["cores"],
        "relay us/mail": relay_cpu / calls * 1e6,
    }
