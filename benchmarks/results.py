"""What a benchmark measured: a table for people, and a JSON file with the machine beside it."""

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

DIRECTORY = Path(__file__).parent / "results"

_LIBRARIES = ("otpmail", "aiosmtplib", "grpcio", "protobuf", "uvloop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A bound on one figure: at most, or at least.

    A quick run, short and often disturbed, widens it `margin` times: so far that only the loss of what makes the
    figure possible is outside. What is `timed`, no ratio of two figures of one run, says as much of the machine as of
    us: a quick run is not held to it.
    """

    what: str
    figure: float
    at_most: float | None = None
    at_least: float | None = None
    margin: float = 2.0
    timed: bool = False

    def kept(self, *, quick: bool = False) -> bool:
        """Whether the figure is within the bound."""
        if quick and self.timed:
            return True
        margin = self.margin if quick else 1.0
        below = self.at_most is None or self.figure <= self.at_most * margin
        return below and (self.at_least is None or self.figure >= self.at_least / margin)

    def __str__(self) -> str:
        bound = f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"
        return f"{self.what}: {self.figure:.2f} ({bound}{'' if self.kept() else '; MISSED'})"


class Results:
    """Takes a benchmark's rows and promises, prints them, writes them down, and fails when a promise is not kept."""

    def __init__(self, name: str, uncaptured: Callable[[], AbstractContextManager[None]], *, quick: bool) -> None:
        self._name = name
        self._uncaptured = uncaptured
        self._quick = quick

    def report(self, rows: Sequence[Mapping[str, object]], *guarantees: Promise, note: str = "") -> None:
        """Print, write and draw, then assert: each promise in a full run, within a wide margin in a quick one."""
        with self._uncaptured():
            print(f"\n{self._name}{' (quick)' if self._quick else ''}\n{table(rows)}")
            if note:
                print(f"  {note}")
            for promise in guarantees:
                print(f"  {promise}")
        self._write(rows, guarantees, note)
        self._draw()
        broken = [str(promise) for promise in guarantees if not promise.kept(quick=self._quick)]
        assert not broken, "; ".join(broken)

    def _write(self, rows: Sequence[Mapping[str, object]], guarantees: tuple[Promise, ...], note: str) -> None:
        DIRECTORY.mkdir(exist_ok=True)
        result = {
            "benchmark": self._name,
            "quick": self._quick,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "rows": rows,
            **({"note": note} if note else {}),
            "promises": [asdict(promise) | {"kept": promise.kept()} for promise in guarantees],
        }
        file = file_of(self._name, DIRECTORY, quick=self._quick)
        file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    def _draw(self) -> None:
        from benchmarks import pictures  # it takes a second to load

        pictures.draw_from(self._name, quick=self._quick)


def file_of(name: str, directory: Path, *, quick: bool, suffix: str = ".json") -> Path:
    """Where results are, and pictures; those of quick runs are not kept in git."""
    return directory / f"{'quick-' if quick else ''}{name}{suffix}"


def table(rows: Sequence[Mapping[str, object]]) -> str:
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


def machine() -> dict[str, object]:
    """The machine and the versions, without names that would say whose it is."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
