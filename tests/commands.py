"""The command line, run as a process."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from service import SOURCES

if TYPE_CHECKING:
    from collections.abc import Mapping


class Ran(NamedTuple):
    """A command's exit code and output."""

    code: int
    out: str
    err: str


async def start(
    *arguments: str,
    server: str = "",
    here: Path | None = None,
    stdout: int = asyncio.subprocess.PIPE,
    stderr: int = asyncio.subprocess.PIPE,
    environment: Mapping[str, str] | None = None,
) -> asyncio.subprocess.Process:
    """Start a command in the directory `here`, with OTPMAIL_SERVER if given, and with no other settings than those."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "otpmail", *arguments),
        cwd=here,
        env={**os.environ, "PYTHONPATH": SOURCES, "OTPMAIL_SERVER": server, "COLUMNS": "200", **(environment or {})},
        stdout=stdout,
        stderr=stderr,
    )


async def ended(process: asyncio.subprocess.Process) -> Ran:
    """Wait for the command's end, and return what it did."""
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ran(process.returncode, (out or b"").decode(), (err or b"").decode())


async def otpmail(*arguments: str, server: str = "", here: Path | None = None, **environment: str) -> Ran:
    """Run a command to its end; see `start`."""
    return await ended(await start(*arguments, server=server, here=here, environment=environment))
