"""Writes the figures into the pages, from the benchmarks' JSON alone. A full benchmark does so when it ends.

A page marks the place of a table with two comments: `<!-- figures: NAME -->` and `<!-- end of figures -->`.

    .venv/bin/python -m benchmarks.report.pages            # writes
    .venv/bin/python -m benchmarks.report.pages --check    # fails where a page has other figures than the results
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report.files import DIRECTORY, file_of

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *(ROOT / f"docs/{name}.md" for name in ("memory", "performance", "scaling")))

_PLACE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
_HIGHEST_LOAD = 0.7  # of the highest rate: beyond it calls pile up, and the latency is that of the pile
_OF_A_SHARD = "calls/s of a whole shard"
_POOL, _OURS, _ALONE = "aiosmtplib, a pool", "otpmail", "gRPC alone"
_STORES = {"memory:": "memory", "sqlite:": "SQLite", "redis:": "Redis"}

Rows = list[dict[str, Any]]


def summary() -> str:
    """The README's one row: mails a second 20 ms from the relay."""
    rates = _by_sender(_rows("throughput"))
    heads = ("an aiosmtplib pool of 5 behind gRPC", "otpmail, 5 connections", "gRPC alone, which sends no mail")
    figures = (rates[_POOL, "CHUNKING"], rates[_OURS, "CHUNKING"], rates[_ALONE, ""])
    return _table(heads, [[f"{_count(row['mails/s'])} a second" for row in figures]])


def distance() -> str:
    """Round trips of one mail, and mails a second, 20 ms from the relay."""
    trips, rates = _by_sender(_rows("latency")), _by_sender(_rows("throughput"))
    pool = rates[_POOL, "CHUNKING"]["mails/s"]
    lines = []
    for (sender, has), row in rates.items():
        trip = trips.get((sender, has), {}).get("round trips")
        times = f"{row['mails/s'] / pool:.1f}" if sender == _OURS else ""
        lines.append([sender, has, f"{trip:.2f}" if trip else "", _count(row["mails/s"]), times])
    return _table(("", "Relay announces", "Round trips, p50", "Mails a second", "Times the pool"), lines)


def unary() -> str:
    """Calls a second at no distance, beside a server that only echoes."""
    heads = ("Method", "Server", "Calls a second", "Of gRPC alone", "CPU of the server for a call, us")
    return _table(
        heads,
        [
            [
                f"`{row['method']}`",
                row["server"],
                _count(row["calls/s"]),
                f"{row['of gRPC alone']:.2f}",
                _count(row["server us/call"]),
            ]
            for row in _rows("unary")
        ],
    )


def callers() -> str:
    """The cost of tokens and limits, beside services without them."""
    heads = ("Method", "Tokens and limits", "Calls a second", "Of none", "CPU of a call, us", "Calls for the same CPU")
    return _compared("callers", heads, ("callers", "of those without", "calls for the same CPU"))


def doors() -> str:
    """The cost of the same calls over gRPC and over HTTP."""
    heads = ("Method", "Over", "Calls a second", "Of gRPC's", "CPU of a call, us", "Of gRPC's")
    return _compared("doors", heads, ("door", "rate, of gRPC", "CPU, of gRPC"))


def _compared(benchmark: str, heads: Sequence[str], columns: tuple[str, str, str]) -> str:
    """Return the calls of services side by side; `columns` name the service, and its parts of a rate and of CPU."""
    name, rate, cpu = columns
    lines = [
        [
            f"`{row['method']}`",
            row[name],
            _count(row["calls/s"]),
            f"{row[rate]:.2f}",
            _count(row["server us/call"]),
            f"{row[cpu]:.2f}",
        ]
        for row in _rows(benchmark)
    ]
    return _table(heads, lines)


def stores() -> str:
    """Calls a second with each store, and what a call costs the service."""
    loads: dict[str, dict[str, dict[str, Any]]] = {}
    for row in _rows("stores"):
        loads.setdefault(row["load"], {})[row["store"]] = row
    lines = [
        [name, *(_count(row[figure]) for figure in ("calls/s", "server us/call") for row in by_store.values())]
        for name, by_store in loads.items()
    ]
    names = [_STORES[store] for store in next(iter(loads.values()))]
    return _table(("", *(f"{name}, a second" for name in names), *(f"{name}, CPU in us" for name in names)), lines)


def batches() -> str:
    """Mails a second by `SendMails`, by the size of its batches."""
    lines = [
        [row["sender"], str(row["batch"]), _count(row["mails/s"]), _count(row["sender us/mail"])]
        for row in _rows("batches")
    ]
    return _table(("", "Batch", "Mails a second", "CPU of the sender for a mail, us"), lines)


def load() -> str:
    """Latency by load, where calls arrive by the clock."""
    lines = [
        [f"`{row['method']}`", _count(row["offered/s"]), _count(row["answered/s"]), *_latencies(row)]
        for row in _rows("latency_under_load")
        if row["load"] <= _HIGHEST_LOAD
    ]
    return _table(("Method", "Calls a second", "Answered a second", "p50, ms", "p99, ms"), lines)


def batching() -> str:
    """Latency with and without the batch window."""
    lines = [[f"{row['load']:g}", row["calls are"], *_latencies(row)] for row in _rows("batching")]
    return _table(("Part of the highest rate", "Calls are", "p50, ms", "p99, ms"), lines)


def recycling() -> str:
    """Mails a second with a relay that ends connections after a number of mails."""
    lines = [
        [
            f"`{row['method']}`",
            f"{row['ms away']} ms",
            str(row["relay's limit"] or "none"),
            _count(row["mails/s"]),
            f"{row['of no limit']:.2f}",
        ]
        for row in _rows("recycling")
    ]
    return _table(("Method", "Distance", "Relay's limit", "Mails a second", "Of no limit"), lines)


def capacity() -> str:
    """The load that each part carries alone, a second."""
    methods = ("SendMail", "SendCode", "ValidateCode")
    rates = {row["method"]: row["calls/s"] for row in _rows("unary") if row["server"] == _OURS}
    alone = next(row["mails/s"] for row in _rows("connections") if row["connections"] == 1)
    scripts = {row["call"]: row[_OF_A_SHARD] for row in _rows("shard")}
    return _table(
        ("Part", "Carries a second", "Benchmark"),
        [
            ["a connection to a relay 20 ms away", f"{_count(alone)} mails", "`test_connections`"],
            *(
                [f"a core of otpmail, `{method}`", f"{_count(rates[method])} calls in memory", "`test_unary`"]
                for method in methods
            ),
            *(
                [f"a shard of Redis, `{method}`", f"{_count(scripts[method])} calls", "`test_shard`"]
                for method in methods[1:]
            ),
        ],
    )


def simulation() -> str:
    """One replica by the simulation, beside what was measured."""
    heads = (
        "Method",
        "Calls a second",
        "p50, ms",
        "simulated",
        "p99, ms",
        "simulated",
        "CPU for a call, us",
        "simulated",
    )
    lines = [
        [
            f"`{row['method']}`",
            _count(row["calls/s"]),
            *(f"{row[f'{name}{kind}']:.1f}" for name in ("p50_ms", "p99_ms") for kind in ("", " simulated")),
            *(_count(row[f"us/call{kind}"]) for kind in ("", " simulated")),
        ]
        for row in _rows("simulation")
    ]
    return _table(heads, lines)


def shard() -> str:
    """The cost of calls for a replica with a store on Redis, and for that server."""
    heads = ("Call", "CPU of otpmail, us", "CPU of Redis, us", "Calls a second of a full shard")
    lines = [
        [f"`{row['call']}`", *(_count(row[name]) for name in ("server us/call", "redis us/call", _OF_A_SHARD))]
        for row in _rows("shard")
    ]
    octets = next(promise["figure"] for promise in _promises("shard") if promise["what"].startswith("octets"))
    return f"{_table(heads, lines)}\nA live code takes {_count(octets)} octets of Redis.\n"


def processes() -> str:
    """The cost of a call with one process and with two."""
    heads = ("Processes", "Calls a second", "CPU of a call, us", "Idle, ms of a processor a second")
    names = ("calls/s", "server us/call")
    lines = [
        [
            _count(row["processes"]),
            *(_count(row[name]) for name in names),
            f"{row['idle, ms of a processor a second']:.1f}",
        ]
        for row in _rows("processes")
    ]
    return _table(heads, lines)


def spread() -> str:
    """How connections are spread over two processes."""
    heads = ("Connections", "Part of the busier of two processes", "highest of all rounds")
    names = ("part of the busier process, mean", "highest")
    lines = [[_count(row["connections"]), *(f"{row[name]:.2f}" for name in names)] for row in _rows("spread")]
    return _table(heads, lines)


def scaling() -> str:
    """The needs of a load of codes, by the simulation."""
    heads = (
        *("Codes a second", "Replicas", "Shards", "Busy, a replica", "a shard"),
        *("`SendCode` p99, ms", "`ValidateCode` p99, ms", "Connections to the relay"),
    )
    lines = [
        [
            *(_count(row[name]) for name in ("codes/s", "replicas", "shards")),
            *(f"{row[f'of a {part} core'] * 100:.1f}%" for part in ("replica's", "shard's")),
            *(f"{row[f'{method} p99_ms']:.1f}" for method in ("SendCode", "ValidateCode")),
            _count(row["connections"]),
        ]
        for row in _rows("scaling")
    ]
    full = next(promise["figure"] for promise in _promises("scaling") if promise["what"].startswith("thousand"))
    return f"{_table(heads, lines)}\nThe thread of one shard is full at {_count(full * 1000)} codes a second.\n"


def memory() -> str:
    """The resident memory that each thing takes."""
    lines = [[row["what"], _octets(row["octets each"])] for row in _rows("memory")]
    return _table(("", "Resident memory of each"), lines)


def calls() -> str:
    """Calls of our own functions, and moves between files, of one call."""
    lines = [[f"`{row['method']}`", str(row["calls"]), str(row["moves"])] for row in _rows("count_calls")]
    return _table(("Method", "Calls of our functions", "Moves between files"), lines)


def resources() -> str:
    """Memory, start and processor time."""
    aiosmtplib, *_, ours = _rows("cpu")
    codes, start, soak = _rows("live_codes")[-1], _rows("start")[0], _promises("soak")
    return _table(
        ("", ""),
        [
            ["CPU of `smtp` and `compose` for a mail", f"{ours['cpu us/mail']:.0f} us"],
            ["the same by `EmailMessage` and aiosmtplib", f"{aiosmtplib['cpu us/mail']:,.0f} us"],
            [f"memory of one of {codes['live codes']:,} live codes", f"{codes['bytes each']:.0f} bytes"],
            ["longest turn of the event loop with them", f"{codes['stall_ms issuing']:.1f} ms"],
            ["start to the first call", f"{start['first call s']:.2f} s"],
            ["memory at rest", f"{start['MiB at rest']:.0f} MiB"],
            ["memory after twenty minutes of mixed load, times that before", f"{soak[0]['figure']:.2f}"],
        ],
    )


def missed() -> str:
    """Return the promises that the benchmarks did not reach."""
    lines = []
    for file in sorted(DIRECTORY.glob("*.json")):
        for promise in [] if file.name.startswith("quick-") else _promises(file.stem):
            if not promise["kept"]:
                least, most = promise["at_least"], promise["at_most"]
                bound = f"at least {least:g}" if least is not None else f"at most {most:g}"
                lines.append([f"`test_{file.stem}`", promise["what"], bound, f"{promise['figure']:.3g}"])
    return _table(("Benchmark", "Figure", "Promised", "Measured"), lines) if lines else "Every promise was kept.\n"


TABLES: dict[str, Callable[[], str]] = {
    table.__name__: table
    for table in (
        *(
            summary,
            distance,
            unary,
            callers,
            doors,
            stores,
            load,
            batching,
            batches,
            recycling,
            calls,
            resources,
            missed,
        ),
        *(memory, capacity, simulation, shard, scaling, processes, spread),
    )
}


def with_figures(page: str) -> str:
    """Return a page with all its tables written anew. Raises KeyError for a table of another name."""
    return _PLACE.sub(lambda place: f"{place[1]}{_table_or_note(TABLES[place[2]])}{place[3]}", page)


def _table_or_note(table: Callable[[], str]) -> str:
    try:
        return table()
    except FileNotFoundError:
        return "Not measured yet.\n"


def main(arguments: Sequence[str]) -> int:
    """Write the pages or, with `--check`, compare them. Returns the exit code."""
    code = 0
    for page in PAGES:
        text = page.read_text("utf-8")
        new = with_figures(text)
        if new == text:
            continue
        if "--check" in arguments:
            print(f"{page.relative_to(ROOT)} has other figures than benchmarks/results")
            code = 1
        else:
            page.write_text(new, "utf-8")
    return code


def _results(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(file_of(name, DIRECTORY, quick=False).read_text("utf-8"))
    return result


def _rows(name: str) -> Rows:
    rows: Rows = _results(name)["rows"]
    return rows


def _promises(name: str) -> Rows:
    promises: Rows = _results(name)["promises"]
    return promises


def _by_sender(rows: Rows) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["sender"], row["relay has"]): row for row in rows}


def _latencies(row: dict[str, Any]) -> list[str]:
    return [f"{row[name]:.1f}" for name in ("p50_ms", "p99_ms")]


def _octets(figure: float) -> str:
    return f"{figure / 1e6:.1f} MB" if figure >= 1e6 else f"{figure / 1e3:.1f} kB"


def _count(figure: float) -> str:
    return f"{figure:,.0f}"


def _table(heads: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    rows = [heads, ["---"] * len(heads), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
