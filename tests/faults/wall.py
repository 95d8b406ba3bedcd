"""The service as a process whose wall clock a test sets, and for which time passes when the test says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service import Service

if TYPE_CHECKING:
    from pathlib import Path

_WALL = """
import time
from pathlib import Path

_true, _true_of, _offsets = time.time, time.clock_gettime, Path({offsets!r})


def _shifted():
    wall, passed = map(float, _offsets.read_text().split())
    return _true() + wall + passed


def _shifted_of(clock):
    return _true_of(clock) + float(_offsets.read_text().split()[1])


time.time, time.clock_gettime = _shifted, _shifted_of
"""


class WallService(Service):
    """A service whose wall clock is some seconds off. The timers of its loop run as they are.

    The time that has passed in one directory has passed for the next service there, too.
    """

    def __init__(self, directory: Path, **settings: Any) -> None:
        self._offsets = directory / "offsets"
        self._wall = 0.0
        self._passed = float(self._offsets.read_text("ascii").split()[1]) if self._offsets.exists() else 0.0
        self._write()
        self._modules = directory / "modules"
        self._modules.mkdir(exist_ok=True)
        (self._modules / "sitecustomize.py").write_text(_WALL.format(offsets=str(self._offsets)))
        super().__init__(**settings)

    def set_wall(self, offset: float) -> None:
        """Set the wall clock, also while the service runs."""
        self._wall = offset
        self._write()

    def let_pass(self, seconds: float) -> None:
        """Let so much time pass, by the wall clock and by the clock of the time since the machine's start."""
        self._passed += seconds
        self._write()

    def _write(self) -> None:
        written = self._offsets.with_suffix(".new")
        written.write_text(f"{self._wall} {self._passed}")
        written.replace(self._offsets)  # at once, so that no reader sees a part

    def _environment(self, home: str) -> dict[str, str]:
        given = super()._environment(home)
        return given | {"PYTHONPATH": f"{self._modules}:{given['PYTHONPATH']}"}
