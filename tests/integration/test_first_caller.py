"""docs/callers.md as a newcomer follows it: its commands and programs run as they stand, and print what it says."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service import SOURCES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_PAGE = Path(__file__).parents[2] / "docs/callers.md"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SAVED = re.compile(r"[Ss]ave this(?: one)? as `([^`]+)`.*?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ADDRESS = "127.0.0.1:40700"  # which another program may have
_TOKEN = "otpmail_..."


def _section() -> str:
    _, _, rest = _PAGE.read_text("utf-8").partition("## A first caller\n")
    return rest.partition("\n### The commands")[0]


def _commands() -> tuple[str, str, list[str]]:
    """Return the command that adds a caller, the one that starts the service, and those for another terminal."""
    blocks = [text for kind, text in _BLOCK.findall(_section()) if not kind and not text.startswith("$ ")]
    (add, serve), others = blocks[0].splitlines(), "".join(blocks[1:]).splitlines()
    return add, serve, others


def _printed() -> dict[str, str]:
    """Return what each command that the page shows after `$` prints."""
    shown = [text.partition("\n") for kind, text in _BLOCK.findall(_section()) if not kind and text.startswith("$ ")]
    return {command.removeprefix("$ "): output for command, _, output in shown}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a folder whose `.venv` has the programs of this otpmail."""
    for name, line in (
        ("python", f'exec {shlex.quote(sys.executable)} "$@"'),
        ("otpmail", f'exec {shlex.quote(sys.executable)} -m otpmail "$@"'),
    ):
        program = tmp_path / ".venv/bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    return tmp_path


async def _start(clone: Path, command: str, **environment: str) -> asyncio.subprocess.Process:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return await asyncio.create_subprocess_exec(
        *("bash", "-c", f"set -e; {command}"),
        cwd=clone,
        env=inherited | {"PYTHONPATH": SOURCES, "COLUMNS": "200"} | environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _run(clone: Path, command: str, **environment: str) -> tuple[str, str]:
    process = await _start(clone, command, **environment)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode(), err.decode()


async def _wait_for(process: asyncio.subprocess.Process, pattern: str) -> str:
    """Read what the process prints until it holds the pattern; returns the pattern's group."""
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while not (found := re.search(pattern, (await process.stdout.readline()).decode())):
            assert not process.stdout.at_eof()
    return found[1]


@asynccontextmanager
async def _serving(clone: Path, command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the service of the page, on a free port."""
    process = await _start(
        clone, f"export {command.replace(' .venv', '; exec .venv')} 2>&1", HOST="127.0.0.1", PORT="0"
    )
    try:
        yield process
    finally:
        process.terminate()
        await process.communicate()


async def test_a_newcomer_follows_the_page(clone: Path) -> None:
    """The token lets calls in, others are refused, and strangers who guess lock nobody out."""
    add, serve, others = _commands()
    programs, printed = dict(_SAVED.findall(_section())), _printed()
    assert list(programs) == ["shop.py", "owner.py"]
    assert list(printed) == [f".venv/bin/python {name}" for name in programs]
    out, told = await _run(clone, add)
    token = out.strip()
    assert token.startswith(_TOKEN.rstrip("."))
    assert "CALLERS_FILE=callers.toml" in told
    async with _serving(clone, serve) as service:
        address = await _wait_for(service, r"serves on ([^\s;,]+)")
        (export,) = (line for line in others if _TOKEN in line)
        before = export.replace(_TOKEN, token)
        for command in others:
            if command != export:
                assert "relayed" in (await _run(clone, f"{before}; {command}", OTPMAIL_SERVER=address))[0]
        (profile,) = (text for kind, text in _BLOCK.findall(_section()) if kind == "toml")
        with (clone / "callers.toml").open("a") as file:
            file.write(profile)
        await _wait_for(service, "reloaded: (CALLERS_FILE)")
        for name, program in programs.items():
            assert _ADDRESS in program
            (clone / name).write_text(program.replace(_ADDRESS, address))
            command = f".venv/bin/python {name}"
            assert (await _run(clone, f"{before}; {command}"))[0] == printed[command]
