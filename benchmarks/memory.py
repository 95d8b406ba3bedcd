"""How much memory a process has resident, on Linux."""

import os
import sys
from pathlib import Path


def resident(pid: int | str = "self") -> int:
    """The resident memory of a process, in bytes; 0 on systems other than Linux."""
    if sys.platform != "linux":
        return 0
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
