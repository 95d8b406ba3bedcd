"""The memory of the process, as the system counts it."""

import sys
from pathlib import Path

import pytest

from otpmail.limits.resident import resident


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc/self/statm")
def test_the_memory_of_this_process() -> None:
    """A running interpreter takes more than a megabyte, and no more than there is."""
    assert 1 << 20 < resident() < 1 << 40


def test_memory_that_can_not_be_read(tmp_path: Path) -> None:
    """Without /proc, or a descriptor to read it, nothing counts as resident, and the service goes on."""
    assert resident(tmp_path / "statm") == 0
