"""The processor time that this process wants: what it gets, and what its event loop waits for beside other programs."""

from contextlib import suppress
from pathlib import Path
from time import process_time

_SCHEDSTAT = Path("/proc/self/schedstat")


def wanted_seconds(file: Path = _SCHEDSTAT) -> float:
    """Return the seconds that the process has run so far, and those in which its main thread waited for a processor.

    The latter are those on the run queue (sched-stats of the kernel's documentation). They tell a loop that has more to
    do than it gets time for, beside a neighbour or within the quota of a container. Where they can't be read, as on
    systems other than Linux, the process counts as having waited for nothing.
    """
    waited = 0
    with suppress(OSError, ValueError, IndexError):
        waited = int(file.read_text("ascii").split()[1])
    return process_time() + waited / 1e9
