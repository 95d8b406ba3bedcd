"""`SendMails` by the size of its batches, beside unary calls to a pool of aiosmtplib's connections."""

import pytest

from benchmarks.callers import stream_batches, take_load
from benchmarks.processes import Certificates, aiosmtplib_pool, relay, service
from benchmarks.results import Promise, Results

_SIZES = (1, 10, 100, 1000)


async def test_mails_a_second_by_batch(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """Batches leave the cost of a call behind: what is left is that of the mail."""
    warm, seconds = (0.3, 0.7) if quick else (1.0, 4.0)
    rows: list[dict[str, object]] = []
    rates: dict[int, float] = {}
    sent = 0.0
    async with relay(certificates, "--distinct") as at, service(at) as server:
        for size in (1, 100) if quick else _SIZES:
            before = at.cpu
            measured = await stream_batches(server, name=f"batch-{size}", batch=size, warm=warm, seconds=seconds)
            if measured is None:
                pytest.skip("the service answers SendMails with UNIMPLEMENTED")
            rates[size] = measured["rate"]
            sent += measured["calls"]
            rows.append(_row("otpmail", size, measured, at.cpu - before))
    at.assert_took(round(sent))
    async with relay(certificates, "--distinct") as at, aiosmtplib_pool(at) as server:
        before = at.cpu
        pool = await take_load(server, warm=warm, seconds=seconds)
        rows.append(_row("aiosmtplib, a pool, unary", "", pool, at.cpu - before))
    at.assert_took(round(pool["calls"]))
    results.report(
        rows,
        Promise(what="thousand mails/s in batches of 100", figure=rates[100] / 1000, at_least=20, margin=5),
        Promise(what="times the pool, batches of 100", figure=rates[100] / pool["rate"], at_least=35, margin=5),
    )


def _row(sender: str, batch: object, measured: dict[str, float], relay_cpu: float) -> dict[str, object]:
    each = {name: measured[name] / measured["calls"] * 1e6 for name in ("server_cpu", "cpu")}
    return {
        "sender": sender,
        "batch": batch,
        "mails/s": measured["rate"],
        "p50_ms": measured["p50_ms"],
        "p99_ms": measured["p99_ms"],
        "sender us/mail": each["server_cpu"],
        "callers us/mail": each["cpu"],
        "callers cores": measured["cores"],
        "relay us/mail": relay_cpu / measured["calls"] * 1e6,
    }
