"""Programs in Node that tests run: where Node is, and the modules that a folder's lock file names."""

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

_INSTALL_SECONDS = 60


def program(name: str) -> str:
    """Return where it is; skip where it is missing, but not in CI, where a skipped test would be an untested one."""
    found = shutil.which(name)
    if found is None:
        message = f"{name} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


def install_modules(folder: Path) -> None:
    """Install exactly what the folder's lock file names, unless it is there; none of it needs its install scripts."""
    lock_file = folder / "package-lock.json"
    with lock_file.open() as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)  # another process of the tests may be at it
        # npm's record of its last installation
        if _packages(lock_file) != _packages(folder / "node_modules" / ".package-lock.json"):
            _install(folder)


def _install(folder: Path) -> None:
    command = [program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)} exited with {done.returncode}:\n{done.stderr}")


def _packages(lock_file: Path) -> dict[str, str]:
    try:
        packages = json.loads(lock_file.read_text(encoding="utf-8"))["packages"]
    except FileNotFoundError:
        return {}
    return {name: package["integrity"] for name, package in packages.items() if name}
