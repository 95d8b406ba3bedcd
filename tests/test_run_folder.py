"""The folder of a run of tests."""

from __future__ import annotations

import os
import tempfile
import time
from typing import TYPE_CHECKING

from run_folder import make_run_folder

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_no_other_run_removes_the_folder_of_a_test(tmp_path: Path) -> None:
    """A test's folder is in none that pytest numbers and removes once three further runs have begun."""
    assert not [part for part in tmp_path.parts if part.startswith("pytest-of-")]


def test_what_failed_runs_have_left_is_removed_after_a_day(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A new run removes the folders of runs that failed more than a day ago, and no others."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old, late = make_run_folder(), make_run_folder()
    (other := tmp_path / "other").mkdir()
    (old / "log").write_text("left")
    for folder, hours in ((old, 25), (late, 23), (other, 25)):
        os.utime(folder, (time.time() - hours * 3600,) * 2)
    new = make_run_folder()
    assert sorted(tmp_path.iterdir()) == sorted([late, new, other])
