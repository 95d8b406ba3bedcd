"""Finds out how much memory the machine, or the container, gives this process."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")
_NOT_MEMORY = 512 << 20  # of the address space: libraries, stacks, and what the threads of gRPC reserve


def available_memory(root: Path = _ROOT, address_space: int | None = None) -> int:
    """Return the octets of memory that this process may use: the least limit of its cgroups, else the machine's memory.

    It reads `memory.max` (cgroup v2) and `memory.limit_in_bytes` (v1) of its own cgroup and of those above. Less counts
    where the `address_space` is limited, which is RLIMIT_AS (getrlimit(2)) unless it is given.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if address_space is None:
        address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    mapped = (max(address_space - _NOT_MEMORY, address_space // 4),) if address_space != resource.RLIM_INFINITY else ()
    limits: tuple[int, ...] = (machine, *_cgroup_limits(root), *mapped)
    return min(limits)


def _cgroup_limits(root: Path) -> Iterator[int]:
    """Yield the limits that are set."""
    for file in _limit_files(root):
        try:
            text = file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):  # no such cgroup, or none that this process may see
            continue
        if text.isdecimal() and int(text) > 0:  # v2 says "max" where there is no limit, v1 a number that no machine has
            yield int(text)


def _limit_files(root: Path) -> Iterator[Path]:
    """Yield the files that may hold a limit, from this process's own cgroup to the root.

    In a container its own cgroup is mounted as the root of the file system, and the path from outside is not there.
    """
    mounted = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            folder, name = mounted, "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = mounted / "memory", "memory.limit_in_bytes"
        else:
            continue
        own = Path(path.strip("/"))
        for group in (own, *own.parents):
            yield folder / group / name


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
