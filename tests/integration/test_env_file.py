"""How often the commands open `.env`: once each, counted by an audit hook in their processes."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from commands import ended, otpmail, start

_HOOK = """
import sys
from pathlib import Path

def note(event, arguments):
    if event == "open" and Path(str(arguments[0])).name == ".env":
        with open({log!r}, "a") as log:
            log.write(f"{{sys.argv[-1]}}\\n")

sys.addaudithook(note)
"""
_RELAYS = "EMAIL_RELAYS=smtps://u:p@one.example smtp://two.example smtp://three.example\n"


class Opens:
    """Counts how often `.env` is opened by processes that start with `environment`."""

    def __init__(self, directory: Path) -> None:
        import otpmail as package

        self._log = directory / "opens"
        self._log.touch()
        hook = directory / "hook"
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(_HOOK.format(log=str(self._log)))
        self.environment = {"PYTHONPATH": f"{hook}:{Path(package.__file__).parents[1]}"}

    @property
    def count(self) -> int:
        """How many times the file was opened so far."""
        return len(self._log.read_text().splitlines())


@pytest.fixture
def opens(tmp_path: Path) -> Opens:
    """Count from nothing, in a directory with a `.env`."""
    (tmp_path / ".env").write_text(f"EMAIL_FROM=codes@example.org\nPORT=1\n{_RELAYS}")
    return Opens(tmp_path)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("check", "--no-dial"), 0),
        (("health",), 3),
        (("code", "send", "ada@example.org"), 3),
        (("mail", "send", "--to", "ada@example.org", "--text", "Hi"), 3),
    ],
)
async def test_a_command_opens_the_file_once(opens: Opens, tmp_path: Path, command: tuple[str, ...], code: int) -> None:
    """A command reads all it needs of `.env` at once: every section, three relays, and which service to call."""
    ran = await otpmail(*command, here=tmp_path, **opens.environment)
    assert (ran.code, opens.count) == (code, 1), ran.err


async def test_dev_opens_the_file_once(opens: Opens, tmp_path: Path) -> None:
    """`otpmail dev` also says how to call it from what it has read."""
    (tmp_path / ".env").write_text("PORT=0\n")
    process = await start("dev", here=tmp_path, environment=opens.environment)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        while b" code validate " not in await process.stdout.readline():
            assert not process.stdout.at_eof()
    process.send_signal(signal.SIGTERM)
    ran = await ended(process)
    assert (ran.code, opens.count) == (0, 1), ran.err
