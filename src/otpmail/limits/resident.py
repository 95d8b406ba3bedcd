"""The memory that this process really takes, for what no count of ours covers: the buffers of gRPC."""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

_M_MMAP_THRESHOLD = -3  # of malloc.h
_LARGE_BLOCK = 1 << 20
_STATM = Path("/proc/self/statm")


def resident(file: Path = _STATM) -> int:
    """Return the octets that are resident (proc(5), statm); 0 where they can't be read.

    That is so on systems other than Linux, without a mounted /proc, and while no file descriptor is free.
    """
    if sys.platform != "linux":
        return 0
    with suppress(OSError):
        return int(file.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def return_large_blocks() -> None:
    """Let the system have a large block back once it is freed, for the whole process (mallopt(3)).

    glibc would keep the space of a mail of 10 MB for later ones, in pieces that are too small for the next one. A tenth
    to a third of the memory of large mails was lost so. Other libraries have no such call.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)


def release_free_memory() -> None:
    """Return to the system what was freed (malloc_trim(3)): it counts as resident until then. Only glibc knows it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
