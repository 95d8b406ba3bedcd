"""A supervisor of small processes, with what it logs and what they write."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otpmail.settings import Settings
from otpmail.supervisor.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

_PROGRAM = str(Path(__file__).parent / "program.py")
_RELAY = {"EMAIL_HOST": "127.0.0.1", "EMAIL_SECURITY": "plain", "EMAIL_FROM": "codes@example.org"}
_SHARED = {"STORE_URL": "redis://127.0.0.1", "OTP_KEYS": "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}
_SECONDS = 30  # in which whatever is waited for happens, also on a busy machine


def shared_settings(**more: str) -> Settings:
    """Return settings of two processes with a store that they share, which these tests never open."""
    return Settings.load(**{"HOST": "127.0.0.1", "PORT": "0", "PROCESSES": "2", **_RELAY, **_SHARED, **more})


class Supervised(logging.Handler):
    """A supervisor that runs, what it logged and what its processes wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.lines: list[str] = []
        self.stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def start(self, act: str, lines: int = 0, length: int = 1, *, settings: Settings, **options: Any) -> None:
        """Start the supervisor of processes that do `act`."""
        command = (sys.executable, _PROGRAM, act, str(lines), str(length))
        self.supervisor = Supervisor(settings, log=self._take_lines, command=command, **options)
        self.running = asyncio.create_task(self.supervisor.run(self.stop))
        self.running.add_done_callback(lambda _: self._changed.set())

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line of the supervisor."""
        self.records.append(record)
        self._changed.set()

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return the fields of its lines of that event."""
        return [vars(record)["fields"] for record in self.records if vars(record).get("event") == event]

    def written(self, text: str) -> int:
        """Return how many lines of the processes have that text."""
        return sum(text in line for line in self.lines)

    async def until(self, happened: Callable[[], bool]) -> None:
        """Wait until that is so."""
        async with asyncio.timeout(_SECONDS):
            while not happened():
                self._changed.clear()
                await self._changed.wait()

    async def end(self) -> int:
        """Stop the supervisor, and return its exit code."""
        self.stop.set()
        return await asyncio.wait_for(self.running, _SECONDS)

    def _take_lines(self, lines: Iterable[bytes]) -> None:
        """Runs in threads."""
        for line in lines:
            assert line.endswith(b"\n")
            self.lines.append(line.decode().removesuffix("\n"))
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._changed.set)


@pytest.fixture
async def supervised(empty_directory: None) -> AsyncIterator[Supervised]:  # noqa: ARG001  for what it does
    """Make a supervisor that is stopped when the test ends."""
    supervised = Supervised()
    log = logging.getLogger("otpmail")
    level = log.level
    log.addHandler(supervised)
    log.setLevel(logging.DEBUG)
    yield supervised
    supervised.stop.set()
    while not supervised.running.done():
        supervised.supervisor.give_up()  # again too: a process may have been about to start
        await asyncio.wait((supervised.running,), timeout=0.1)
    await asyncio.gather(supervised.running, return_exceptions=True)  # its end is the test's
    log.removeHandler(supervised)
    log.setLevel(level)
