"""Processes of a benchmark end with its run."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

_RUN = """
import asyncio
from benchmarks.processes import Process

async def main():
    async with Process("benchmarks.peers.echo", "--rtt", "0") as peer:
        await peer.line()
        print(peer.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
async def test_a_run_that_is_killed_leaves_no_process_behind() -> None:
    """The peers of a benchmark end with it, also when it is killed and has no time to end them."""
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _RUN),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
    )
    assert run.stdout is not None
    pid = int(await run.stdout.readline())
    ended = os.pidfd_open(pid)
    try:
        run.kill()
        await run.wait()
        readable = asyncio.Event()
        asyncio.get_running_loop().add_reader(ended, readable.set)
        async with asyncio.timeout(30):
            await readable.wait()
    finally:
        asyncio.get_running_loop().remove_reader(ended)
        os.close(ended)
