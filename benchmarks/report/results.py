"""The results of a benchmark: a table for people, a JSON file with the machine beside it, and its figure."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime

from benchmarks.report import pages
from benchmarks.report.files import DIRECTORY, file_of
from benchmarks.report.machine import machine
from benchmarks.report.promise import Promise

Rows = Sequence[Mapping[str, object]]


class Results:
    """Prints the rows and promises of a benchmark, writes and draws them, and fails when a promise is missed."""

    def __init__(self, name: str, uncaptured: Callable[[], AbstractContextManager[None]], *, quick: bool) -> None:
        self._name = name
        self._uncaptured = uncaptured
        self._quick = quick

    def report(self, rows: Rows, *promises: Promise, note: str = "") -> None:
        """Print, write and draw; then assert each promise, in a quick run within its wider margin.

        A full run also writes the tables of the pages anew.
        """
        with self._uncaptured():
            print(f"\n{self._name}{' (quick)' if self._quick else ''}\n{table(rows)}")
            for line in (*note.splitlines(), *promises):
                print(f"  {line}")
        self._write(rows, promises, note)
        self._draw()
        if not self._quick:
            pages.main([])
        missed = [str(promise) for promise in promises if not promise.kept(quick=self._quick)]
        assert not missed, "; ".join(missed)

    def _write(self, rows: Rows, promises: tuple[Promise, ...], note: str) -> None:
        DIRECTORY.mkdir(exist_ok=True)
        result = {
            "benchmark": self._name,
            "quick": self._quick,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "rows": rows,
            **({"note": note} if note else {}),
            "promises": [asdict(promise) | {"kept": promise.kept()} for promise in promises],
        }
        file = file_of(self._name, DIRECTORY, quick=self._quick)
        file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    def _draw(self) -> None:
        from benchmarks.report import pictures  # matplotlib takes a second to load

        pictures.draw_from(self._name, quick=self._quick)


def table(rows: Rows) -> str:
    """The rows in aligned columns, under the keys of the first."""
    columns = list(rows[0])
    cells = [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(f"  {line}" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
