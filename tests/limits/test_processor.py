"""The processor time that the process wants, as the system counts it."""

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from otpmail.limits.processor import wanted_seconds


def _stolen_seconds(core: int) -> float:
    """Return the seconds in which the host of this machine has had the core (steal, in proc_stat(5))."""
    lines = Path("/proc/stat").read_text("ascii").splitlines()
    ticks = next((line.split()[8] for line in lines if line.startswith(f"cpu{core} ")), "0")
    return int(ticks) / os.sysconf("SC_CLK_TCK")


def _want_all(seconds: float) -> float:
    """Run on one core for so many seconds beside others; return the part of the core that was wanted."""
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    begun, wanted, stolen = time.monotonic(), wanted_seconds(), _stolen_seconds(core)
    while (passed := time.monotonic() - begun) < seconds:
        pass
    return (wanted_seconds() - wanted) / (passed - (_stolen_seconds(core) - stolen))


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not count it")
def test_a_process_that_shares_its_core() -> None:
    """Two processes that share a core get a half of it each, and both want the whole."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        shares = list(pool.map(_want_all, [1.0, 1.0]))
    assert min(shares) > 0.9


@pytest.mark.skipif(sys.platform != "linux", reason="time is taken from one process only")
@pytest.mark.parametrize("text", [None, "", "1", "1 x 2"])
def test_waits_that_can_not_be_read(tmp_path: Path, text: str | None) -> None:
    """Without the file, or with another content, the time that the process has run is all that it wanted."""
    file = tmp_path / "schedstat"
    if text is not None:
        file.write_text(text)
    before = time.process_time()
    assert before <= wanted_seconds(file) <= time.process_time()
