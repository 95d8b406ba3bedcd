"""How much memory this process may use: the least limit of its cgroups, or what the machine has."""

import os
from pathlib import Path

import pytest

from otpmail.settings import MailSettings
from otpmail.settings.machine import available_memory

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
MIB = 1 << 20


def _cgroup(root: Path, line: str, limits: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(line)
    for name, text in limits.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    ("line", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": f"{512 * MIB}\n"}, 512 * MIB),
        ("0::/app/one\n", {"app/one/memory.max": "max\n", "app/memory.max": f"{256 * MIB}\n"}, 256 * MIB),
        ("0::/app/one\n", {"app/one/memory.max": f"{64 * MIB}\n", "app/memory.max": f"{256 * MIB}\n"}, 64 * MIB),
        ("4:memory:/docker/1\n", {"memory/memory.limit_in_bytes": f"{512 * MIB}\n"}, 512 * MIB),
        ("4:cpu,memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": f"{32 * MIB}\n"}, 32 * MIB),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, MACHINE),
        ("0::/\n", {"memory.max": "max\n"}, MACHINE),
        ("0::/\n", {"memory.max": "not a number\n"}, MACHINE),
        ("3:cpu:/\n", {"memory.max": f"{512 * MIB}\n"}, MACHINE),
        ("", {}, MACHINE),
    ],
)
def test_the_least_limit_counts(tmp_path: Path, line: str, limits: dict[str, str], expected: int) -> None:
    """The least limit of the own cgroup and those above counts, in both versions; without one, the machine's memory."""
    assert available_memory(_cgroup(tmp_path, line, limits)) == expected


def test_without_proc(tmp_path: Path) -> None:
    """Where the system tells nothing of cgroups, the machine's memory counts."""
    assert available_memory(tmp_path) == MACHINE


@pytest.mark.parametrize(("mib", "expected"), [(1536, 1024), (512, 128)])
def test_an_address_space_that_is_limited(tmp_path: Path, mib: int, expected: int) -> None:
    """Of a limited address space counts what libraries and threads leave, and a quarter at the least."""
    assert available_memory(tmp_path, mib * MIB) == expected * MIB


def test_the_budget_is_half_of_it() -> None:
    """Without MEMORY_MAX_MB the budget is half of that memory, at most 2 GiB; with it, the setting counts."""
    assert MailSettings().memory_octets == min(available_memory() // 2, 2 << 30)
    assert MailSettings(memory_max_mb=100).memory_octets == 100 * MIB
