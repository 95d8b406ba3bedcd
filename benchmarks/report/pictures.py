"""The figures as SVG, drawn from the benchmarks' JSON alone.

`.venv/bin/python -m benchmarks.report.pictures` draws every figure again whose JSON exists. The same JSON gives the
same octets. Text and axes follow the reader's colour scheme; the other colours are visible on white and on dark pages.
"""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.report.files import DIRECTORY, file_of

Rows = list[dict[str, Any]]
Sources = dict[str, Rows]
"""The rows of each benchmark that a figure is drawn from."""

_INK = "#767676"  # for viewers without colour schemes; contrast 4.5 on white, and 4.2 on a dark page
_SCHEMES = ":root{--ink:#3d444d}@media(prefers-color-scheme:dark){:root{--ink:#c5ccd3}}"
_OURS, _POOL, _CONNECT, _ALONE, _WORSE = "#2f7fd6", "#d9730d", "#a371f7", "#7d8590", "#e5534b"
_COLOURS = {
    "otpmail": _OURS,
    "aiosmtplib, a pool": _POOL,
    "aiosmtplib, a pool, unary": _POOL,
    "a connection for each mail": _CONNECT,
    "gRPC alone": _ALONE,
    "gRPC alone, in batches": _ALONE,
}
_PERCENTILES = {"p50_ms": ("p50", _OURS), "p99_ms": ("p99", _POOL), "p99.9_ms": ("p99.9", _WORSE)}
_STYLE: Any = {  # matplotlib names each key in a type
    "svg.hashsalt": "otpmail",
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.color": _INK,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.markersize": 5,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}


def table(figure: Figure, sources: Sources) -> None:
    """The original's table: the mean time of a request by workers, a panel for each relay."""
    rows = sources["table"]
    relays = _distinct(rows, "relay")
    for place, (panel, relay) in enumerate(zip(_panels(figure, len(relays)), relays, strict=True)):
        for sender in _distinct(rows, "sender"):
            own = [row for row in rows if row["relay"] == relay and row["sender"] == sender]
            _line(panel, own, "workers", "mean_ms", sender, _COLOURS[sender])
        panel.set(title=f"relay {relay}", xlabel="workers", ylabel="" if place else "mean time of a request, ms")
        panel.set_xticks(_distinct(rows, "workers"))
        _log(panel.yaxis, panel.set_yscale)
        panel.set_ylim(min(row["mean_ms"] for row in rows) / 1.5, max(row["mean_ms"] for row in rows) * 1.5)
    _legend(figure)


def latency_under_load(figure: Figure, sources: Sources) -> None:
    """Percentiles of latency by offered load, a panel for each method."""
    rows = sources["latency_under_load"]
    methods = _distinct(rows, "method")
    for place, (panel, method) in enumerate(zip(_panels(figure, len(methods)), methods, strict=True)):
        own = [row for row in rows if row["method"] == method]
        for name, (label, colour) in _PERCENTILES.items():
            _line(panel, own, "offered/s", name, label, colour)
        panel.set(title=method, xlabel="calls offered a second", ylabel="" if place else "latency, ms")
        panel.set_xlim(left=0)
        _log(panel.yaxis, panel.set_yscale)
    _legend(figure)


def unary(figure: Figure, sources: Sources) -> None:
    """Unary calls a second beside a server that only echoes."""
    rows = sources["unary"]
    methods = _distinct(rows, "method")
    for panel, method in zip(_panels(figure, len(methods)), methods, strict=True):
        _bars(panel, [row for row in rows if row["method"] == method], "server", "calls/s")
        panel.set(title=f"{method}, calls a second")


def batches(figure: Figure, sources: Sources) -> None:
    """Mails a second over `SendMails` by batch size, beside unary calls to a pool."""
    rows = sources["batches"]
    (panel,) = _panels(figure, 1)
    streams = [row for row in rows if row["batch"]]
    _line(panel, streams, "batch", "mails/s", "otpmail, SendMails", _OURS)
    for row in rows:
        if not row["batch"] and "pool" in row["sender"]:  # gRPC alone is too far above them
            panel.axhline(row["mails/s"], color=_POOL, label=row["sender"], linestyle="--")
    panel.set(xlabel="mails in a batch", ylabel="mails a second")
    panel.set_xscale("log")
    panel.set_xticks([row["batch"] for row in streams], [f"{row['batch']:,}" for row in streams])
    panel.xaxis.set_minor_formatter(NullFormatter())
    _from_zero(panel)
    _legend(figure)


def growth(figure: Figure, sources: Sources) -> None:
    """Costs by the amount of work: live codes, the queue, the size of mails, connections."""
    memory, checks, holds, queue, size, connections = _panels(figure, 6, columns=3)
    codes = sources["live_codes"]
    _line(memory, codes, "live codes", "bytes each", "", _OURS)
    memory.set(title="bytes for each live code", xlabel="live codes")
    _from_zero(memory)
    _line(checks, codes, "live codes", "check p50_us", "p50", _OURS)
    _line(checks, codes, "live codes", "check p99_us", "p99", _POOL)
    checks.set(title="checking a code, us", xlabel="live codes")
    _from_zero(checks)
    for colour, phase in zip(
        (_WORSE, _POOL, _OURS, _ALONE), ("issuing", "checking", "expiring", "sweeping"), strict=True
    ):
        _line(holds, codes, "live codes", f"stall_ms {phase}", phase, colour)
    holds.set(title="longest turn of the loop, ms", xlabel="live codes")
    _log(holds.yaxis, holds.set_yscale)
    waiting = [row for row in sources["queue"] if isinstance(row["waiting"], int)]
    _line(queue, waiting, "waiting", "p50_ms", "p50", _OURS)
    _line(queue, waiting, "waiting", "p99_ms", "p99", _POOL)
    queue.set(title="accepting a mail, ms", xlabel="mails that wait")
    _from_zero(queue)
    _line(size, sources["mail_size"], "octets", "p50_ms", "", _OURS)
    size.set(title="one mail, ms", xlabel="octets")
    _log(size.yaxis, size.set_yscale)
    _line(connections, sources["connections"], "connections", "mails/s", "", _OURS)
    connections.set(title="mails a second, 64 callers, 20 ms", xlabel="connections")
    _from_zero(connections)
    for panel in (memory, checks, holds, size):
        _log(panel.xaxis, panel.set_xscale)
    for panel in (checks, holds, queue):
        panel.legend(fontsize=8)


def distance(figure: Figure, sources: Sources) -> None:
    """One mail in round trips, and mails a second, with a relay 20 ms away."""
    trips, rate = _panels(figure, 2)
    _bars(trips, sources["latency"], "sender", "round trips", and_relay=True)
    trips.set(title="round trips for one mail, p50")
    _bars(rate, sources["throughput"], "sender", "mails/s", and_relay=True)
    rate.set(title="mails a second, 64 callers, 5 connections")


def soak(figure: Figure, sources: Sources) -> None:
    """Memory, tasks and open files of the service over a soak."""
    memory, tasks = _panels(figure, 2)
    rows = sources["soak"]
    _line(memory, rows, "until s", "MiB", "", _OURS)
    memory.set(title="resident memory, MiB", xlabel="seconds")
    _line(tasks, rows, "until s", "tasks", "tasks", _OURS)
    _line(tasks, rows, "until s", "files", "open files", _POOL)
    tasks.set(title="tasks and open files", xlabel="seconds")
    for panel in (memory, tasks):
        _from_zero(panel)
        panel.set_xlim(left=0)
    tasks.legend(fontsize=8)


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure: the function that draws it and names its file, the benchmarks it shows, and its size in inches."""

    draw: Callable[[Figure, Sources], None]
    sources: tuple[str, ...]
    size: tuple[float, float]

    @property
    def name(self) -> str:
        """The name of its file."""
        return self.draw.__name__

    def write(self, directory: Path, *, quick: bool) -> Path | None:
        """Draw it from the results in `directory`, and return its file; None when results are missing."""
        files = {source: file_of(source, directory, quick=quick) for source in self.sources}
        if not all(file.exists() for file in files.values()):
            return None
        sources = {source: json.loads(file.read_text(encoding="utf-8"))["rows"] for source, file in files.items()}
        target = file_of(self.name, directory, quick=quick, suffix=".svg")
        target.write_text(self.svg(sources), encoding="utf-8")
        return target

    def svg(self, sources: Sources) -> str:
        """The figure itself."""
        with mpl.rc_context(_STYLE):
            figure = Figure(figsize=self.size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06))
            self.draw(figure, sources)
            out = StringIO()
            metadata = {"Date": None, "Creator": None, "Title": self.draw.__doc__}
            figure.savefig(out, format="svg", transparent=True, metadata=metadata)
        text = out.getvalue().replace("*{stroke-linejoin", f"{_SCHEMES} *{{stroke-linejoin", 1)
        text = re.sub(rf"(fill|stroke): {_INK}", rf"\1: {_INK}; \1: var(--ink)", text)
        return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)


PICTURES = (
    Picture(table, ("table",), (10, 3.2)),
    Picture(latency_under_load, ("latency_under_load",), (10, 3.4)),
    Picture(unary, ("unary",), (10, 2.0)),
    Picture(batches, ("batches",), (7, 3.4)),
    Picture(growth, ("live_codes", "queue", "mail_size", "connections"), (10, 5.6)),
    Picture(distance, ("latency", "throughput"), (10, 2.4)),
    Picture(soak, ("soak",), (10, 2.8)),
)


def draw_from(source: str, *, quick: bool, directory: Path = DIRECTORY) -> None:
    """Draw the figures that show this benchmark."""
    for picture in PICTURES:
        if source in picture.sources:
            picture.write(directory, quick=quick)


def _panels(figure: Figure, count: int, columns: int = 0) -> Sequence[Axes]:
    columns = columns or count
    return [figure.add_subplot(-(-count // columns), columns, place + 1) for place in range(count)]


def _distinct(rows: Rows, name: str) -> list[Any]:
    return list(dict.fromkeys(row[name] for row in rows))


def _line(panel: Axes, rows: Rows, x: str, y: str, label: str, colour: str) -> None:  # noqa: PLR0917  as plot has them
    panel.plot([row[x] for row in rows], [row[y] for row in rows], marker="o", color=colour, label=label)


def _bars(panel: Axes, rows: Rows, name: str, value: str, *, and_relay: bool = False) -> None:
    """Horizontal bars with their values beside them."""
    names = [
        f"{row[name]},\n{row['relay has']}" if and_relay and row["relay has"] and row[name] == "otpmail" else row[name]
        for row in rows
    ]
    places = range(len(rows))
    bars = panel.barh(places, [row[value] for row in rows], color=[_COLOURS[row[name]] for row in rows], height=0.65)
    panel.bar_label(
        bars, [f"{row[value]:,.0f}" if row[value] >= 10 else f"{row[value]:.2f}" for row in rows], padding=3
    )
    panel.set_yticks(places, names)
    panel.invert_yaxis()
    panel.set_xticks([])
    panel.spines["bottom"].set_visible(False)
    panel.margins(x=0.18)
    panel.grid(visible=False)


def _from_zero(panel: Axes) -> None:
    """Let the axis begin at 0."""
    panel.set_ylim(0, panel.dataLim.ymax * 1.1)


def _log(axis: Any, set_scale: Callable[[str], None]) -> None:
    """Make the axis logarithmic, with plain numbers."""
    set_scale("log")
    axis.set_major_formatter(FuncFormatter(_plain))
    low, high = axis.get_view_interval()
    axis.set_minor_formatter(FuncFormatter(_plain) if high / low < 10 else NullFormatter())


def _plain(value: float, _: int | None = None) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _legend(figure: Figure) -> None:
    """Draw one legend for all panels, above them."""
    lines, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper left", ncols=len(labels))


def main() -> None:
    """Draw all figures whose JSON exists."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="from the results of a quick run")
    parser.add_argument("--directory", type=Path, default=DIRECTORY)
    given = parser.parse_args()
    written = [picture.write(given.directory, quick=given.quick) for picture in PICTURES]
    drawn = [file.name for file in written if file]
    print(f"drawn: {', '.join(drawn)}" if drawn else "drawn: none, since no figure has all of its results")


if __name__ == "__main__":
    main()
