"""A run of tests that is ended from outside leaves no process of its own behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from integration.conftest import require
from integration.exim import Exim
from integration.postfix import Postfix

_TESTS = Path(__file__).parents[1]
_SERVERS = {"exim4", "master", "redis-server"}
_MOST_SECONDS = 100.0  # generous: the machine may be busy
_TEST = """
import asyncio
from pathlib import Path
from redis_server import RedisServer

async def test_that_waits(postfix, exim, service):
    with RedisServer():
        Path("waits").touch()
        await asyncio.Event().wait()
"""


class _Process(NamedTuple):
    """A process: its id and when it started, since ids come again; its parent is another one once that has ended."""

    pid: int
    started: str
    name: str
    parent: int


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda sign: sign.name)
async def test_a_run_that_is_ended_ends_what_it_started(tmp_path: Path, sign: signal.Signals) -> None:
    """Whatever signal ends a run of tests: Postfix, Exim, Redis and the service end with it, and all their children."""
    for server in (Postfix, Exim):
        require(server)
    (tmp_path / "test_that_waits.py").write_text(_TEST)
    run = await _start(tmp_path)
    ending = asyncio.create_task(run.communicate())
    try:
        async with asyncio.timeout(_MOST_SECONDS):
            while not (tmp_path / "waits").exists():
                assert not ending.done(), ending.result()[0].decode()
                await asyncio.sleep(0.05)
            started = _descendants(run.pid)
            run.send_signal(sign)
            await ending
            ids = {process[:2] for process in started}
            while ids & {process[:2] for process in _running()}:  # noqa: ASYNC110  nor do those that are not its children
                await asyncio.sleep(0.05)
    finally:
        if run.returncode is None:
            run.kill()
    names = {process.name for process in started}
    assert names > _SERVERS
    assert any(name.startswith("python") for name in names)


async def _start(folder: Path) -> asyncio.subprocess.Process:
    """Run the test in a folder. The run ignores no signal, also if this one does, as under nohup."""
    ignored = [sign for sign in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(sign) is signal.SIG_IGN]
    for sign in ignored:
        signal.signal(sign, signal.SIG_DFL)
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pytest", "-p", "conftest", "-p", "integration.conftest", "-p", "no:cacheprovider"),
            *("--config-file", _TESTS.parent / "pyproject.toml", "--rootdir", folder, "test_that_waits.py"),
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(_TESTS)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    finally:
        for sign in ignored:
            signal.signal(sign, signal.SIG_IGN)


def _descendants(pid: int) -> set[_Process]:
    """Return the children of a process, their children, and so on."""
    running = _running()
    found, parents = set[_Process](), {pid}
    while some := {process for process in running if process.parent in parents}:
        found |= some
        parents = {process.pid for process in some}
    return found


def _running() -> set[_Process]:
    """Return all processes that have not ended; one that nobody has waited for yet has."""
    processes = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        name, _, rest = text.partition("(")[2].rpartition(")")
        state, parent, *others = rest.split()
        if state not in "ZX":
            processes.add(_Process(int(stat.parent.name), others[17], name, int(parent)))
    return processes
