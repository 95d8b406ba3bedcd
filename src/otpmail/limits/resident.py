"""The memory that this process really takes, for what no count of ours covers: the buffers of gRPC."""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

_STATM = Path("/proc/self/statm")


def resident() -> int:
    """Return the octets that are resident (proc(5), statm); 0 on systems other than Linux."""
    if sys.platform != "linux":
        return 0
    return int(_STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def release_free_memory() -> None:
    """Return to the system what was freed (malloc_trim(3)): it counts as resident until then. Only glibc knows it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
