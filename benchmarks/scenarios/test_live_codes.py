"""The cost of live codes in memory and in time, by how many there are."""

from benchmarks.processes import run
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

_SIZES = (1_000, 10_000, 100_000, 1_000_000)
_PHASES = ("issuing", "checking", "sweeping", "expiring")


async def test_cost_of_live_codes(results: Results, *, quick: bool) -> None:
    """A million codes take 500 bytes each, never hold the loop for long, and are checked as fast as a thousand."""
    sizes = (1_000, 20_000) if quick else _SIZES
    rows = [await run("benchmarks.load.live_codes", "--count", size) for size in sizes]
    few, many = rows[0], rows[-1]
    results.report(
        rows,
        Promise(what="bytes for each of the most codes", figure=many["bytes each"], at_most=500, margin=1.5),
        Promise(
            what="longest turn of the loop, ms of processor time",
            figure=max(row[f"stall_ms {phase}"] for row in rows for phase in _PHASES),
            at_most=5,
            timed=True,
        ),
        Promise(
            what="a check among the most, times one among the fewest",
            figure=many["check p50_us"] / few["check p50_us"],
            at_most=1.2,
        ),
    )
