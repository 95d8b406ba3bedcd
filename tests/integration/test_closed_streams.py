"""Standard streams that are closed at the start, as a supervisor or `2>&-` leaves them: no command aborts."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import grpc.aio
import pytest

from service import SOURCES


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
async def test_the_service_runs_and_stops(tmp_path: Path, closed: str) -> None:
    """A service without standard streams listens, and ends with 0; its sockets do not get the streams' numbers."""
    process = await _start(f'exec "$0" -m otpmail serve {closed}', tmp_path)
    try:
        async with asyncio.timeout(20), grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
            await channel.channel_ready()
            streams = [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in range(3)]  # noqa: PTH115  /proc does not block
            assert not [name for name in streams if name.startswith(("socket:", "anon_inode:"))]
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("command", "code"), [("check --no-dial", 0), ("health", 3), ("--version", 0), ("serve -x", 2)]
)
async def test_other_commands(tmp_path: Path, command: str, code: int, closed: str) -> None:
    """A command has its usual exit code, whether or not it can print."""
    process = await _start(f'exec "$0" -m otpmail {command} {closed}', tmp_path)
    async with asyncio.timeout(20):
        _, errors = await process.communicate()
    assert process.returncode == code, errors
    assert b"Traceback" not in errors


async def _start(script: str, directory: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", script, sys.executable),
        cwd=directory,
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": SOURCES,
            "HOST": f"unix:{directory}/s",
            "EMAIL_HOST": "127.0.0.1",
            "EMAIL_PORT": "1",
            "EMAIL_FROM": "codes@example.org",
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_a_token_for_a_closed_output(tmp_path: Path) -> None:
    """`caller add` makes no file whose token nobody can read, and says why."""
    process = await _start('exec "$0" -m otpmail caller add shop --file callers.toml >&-', tmp_path)
    async with asyncio.timeout(20):
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert errors == b"nothing was changed: standard output does not take the token, as it is closed\n"
    assert not os.listdir(tmp_path)  # noqa: PTH208  not Path's, which blocks
