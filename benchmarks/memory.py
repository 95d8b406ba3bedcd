"""How much memory a process has resident. It is told on Linux only."""

import os
import sys
from pathlib import Path


def resident(pid: int | str = "self") -> int:
    """The resident memory of a process, in bytes; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
