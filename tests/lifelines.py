"""Ends what a test run has started when the run ends, also by SIGKILL, which leaves fixtures no time."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SETPRIV = shutil.which("setpriv")

# The shell waits for the end of its standard input, which the kernel closes with the run.
_END_GROUP = 'read -r _; kill -KILL "-$1"; rm -rf -- "$2"'


def with_parent() -> list[str]:
    """Return the words before a command that is to end with this process, as long as it changes no user."""
    return [] if _SETPRIV is None else [_SETPRIV, "--pdeathsig", "KILL"]


class Lifeline:
    """Ends a process group, and removes its directory, if this run ends before `close` is called.

    For servers whose processes change their user: the kernel forgets then what `with_parent` has asked for.
    """

    def __init__(self, group: int, directory: Path) -> None:
        """Watch from now on."""
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", _END_GROUP, "lifeline", str(group), str(directory)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what is sent to the terminal's processes does not reach it
        )

    def close(self) -> None:
        """Watch no more: the group has ended in order."""
        self._watcher.kill()
        self._watcher.communicate()
