"""`SendMails` by the size of its batches, beside unary calls to a pool of aiosmtplib's connections, and gRPC alone."""

from statistics import median

import pytest

from benchmarks.callers import stream_batches, take_load
from benchmarks.processes import Certificates, aiosmtplib_pool, echo, relay, service
from benchmarks.results import Promise, Results

_SIZES = (1, 10, 1000)
_SIZE = 100  # the one that is promised something


async def test_mails_a_second_by_batch(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """Batches leave the cost of a call behind: what is left is that of the mail."""
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
        for place in range(rounds):  # side by side, so that a noisy minute is everybody's
            measured = await stream_batches(server, name=f"round-{place}", batch=_SIZE, warm=warm, seconds=seconds)
            if measured is None:
                pytest.skip("the service answers SendMails with UNIMPLEMENTED")
            batches.append(measured)
            singles.append(await take_load(pool, warm=warm, seconds=seconds, first=place * 100_000_000))
        rows.append(_row("otpmail", _SIZE, batches, at.cpu - before[0]))
        pool_row = _row("aiosmtplib, a pool, unary", "", singles, pools.cpu - before[1])
        sent += sum(measured["calls"] for measured in batches)
        for size in () if quick else _SIZES:
            cpu = at.cpu
            measured = await stream_batches(server, name=f"batch-{size}", batch=size, warm=warm, seconds=seconds)
            assert measured is not None
            sent += measured["calls"]
            rows.append(_row("otpmail", size, [measured], at.cpu - cpu))
        bare = await stream_batches(alone, name="alone", batch=_SIZE, warm=warm, seconds=seconds)
        assert bare is not None
    at.assert_took(round(sent))
    pools.assert_took(round(sum(single["calls"] for single in singles)))
    rows.sort(key=lambda row: int(str(row["batch"])))
    results.report(
        [*rows, _row("gRPC alone, batches of 100", "", [bare], 0.0), pool_row],
        Promise(
            what="thousand mails/s in batches of 100",
            figure=median(measured["rate"] for measured in batches) / 1000,
            at_least=20,
            timed=True,
        ),
        Promise(
            what="times the pool, batches of 100",
            figure=median(ours["rate"] / theirs["rate"] for ours, theirs in zip(batches, singles, strict=True)),
            at_least=35,
            margin=5,
        ),
    )


def _row(sender: str, batch: object, rounds: list[dict[str, float]], relay_cpu: float) -> dict[str, object]:
    calls = sum(measured["calls"] for measured in rounds)
    each = {name: sum(measured[name] for measured in rounds) / calls * 1e6 for name in ("server_cpu", "cpu")}
    middle = {name: median(measured[name] for measured in rounds) for name in ("rate", "p50_ms", "p99_ms", "cores")}
    return {
        "sender": sender,
        "batch": batch,
        "mails/s": middle["rate"],
        "p50_ms": middle["p50_ms"],
        "p99_ms": middle["p99_ms"],
        "sender us/mail": each["server_cpu"],
        "callers us/mail": each["cpu"],
        "callers cores": middle["cores"],
        "relay us/mail": relay_cpu / calls * 1e6,
    }
