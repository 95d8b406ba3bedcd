"""The service as a process whose wall clock a test sets; all other clocks run as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service import Service

if TYPE_CHECKING:
    from pathlib import Path

_WALL = """
import time
from pathlib import Path

_true, _offset = time.time, Path({offset!r})


def _shifted():
    return _true() + float(_offset.read_text())


time.time = _shifted
"""


class WallService(Service):
    """A service that reads `offset` seconds more than the wall clock says."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self._offset = directory / "offset"
        self._modules = directory / "modules"
        self._modules.mkdir(exist_ok=True)
        (self._modules / "sitecustomize.py").write_text(_WALL.format(offset=str(self._offset)))
        super().__init__(**settings)

    def set_wall(self, offset: float) -> None:
        """Set the wall clock, also while the service runs."""
        written = self._offset.with_suffix(".new")
        written.write_text(str(offset))
        written.replace(self._offset)  # at once, so that no reader sees a part

    def _environment(self, home: str) -> dict[str, str]:
        given = super()._environment(home)
        return given | {"PYTHONPATH": f"{self._modules}:{given['PYTHONPATH']}"}
