"""A folder of its own for the temporary files of each run of tests.

pytest numbers the folders of all runs of a user, and each run removes those but the last three. One that has just begun
and holds no lock yet can lose its folder so, where several runs begin at once.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

_PREFIX = "otpmail-tests-"
_KEPT_SECONDS = 86_400.0


def make_run_folder() -> Path:
    """Make the folder, and remove those that failed runs have left more than a day ago."""
    _remove_old_folders(Path(tempfile.gettempdir()), time.time() - _KEPT_SECONDS)
    return Path(tempfile.mkdtemp(prefix=_PREFIX))


def _remove_old_folders(where: Path, before: float) -> None:
    for folder in where.glob(f"{_PREFIX}*"):
        try:
            found = folder.lstat()
        except OSError:  # another run has removed it
            continue
        if found.st_uid == os.getuid() and found.st_mtime < before:
            shutil.rmtree(folder, ignore_errors=True)
