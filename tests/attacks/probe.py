"""Measures how long the service holds its event loop: the longest turn, in the processor time of the loop's thread.

As a program (`python -m attacks.probe serve`) it is `otpmail` with the measure on its loop. Both sides share a file.
"""

import asyncio
import mmap
import os
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import uvloop

from service import Service

LONGEST_TURN = 0.030
"""Seconds that no single request may hold the loop for."""

LONGEST_TURN_OF_A_SLOW_MACHINE = 0.200
"""The bound of the short form: a slow machine that others use too takes six times as long for the same turn."""

_TICK_SECONDS = 0.001
_TRIES = 3
_PAUSE_SECONDS = 0.5  # before another try, for other processes to have done their work
_FILE = "OTPMAIL_PROBE_FILE"
_LOOP = "OTPMAIL_PROBE_LOOP"
_VALUES = struct.Struct("dq")  # the longest turn in seconds, and how often the loop was looked at


class ProbedService(Service):
    """The service as a process whose loop is measured; `directory` is where the file of the measure is put."""

    module = "attacks.probe"

    def __init__(self, directory: Path, *, loop: str = "uvloop", **settings: object) -> None:
        """Take the settings; `loop` is asyncio's own or uvloop, which the service runs on."""
        path = directory / "probe"
        path.write_bytes(bytes(_VALUES.size))
        super().__init__(command="serve", **{_FILE: path, _LOOP: loop, **settings})
        self._probe = _Shared(path)

    def reset_probe(self) -> None:
        """Measure from now on."""
        self._probe.write(0.0, 0)

    async def longest_turn_of(self, attack: Callable[[], Awaitable[object]], *, within: float) -> float:
        """Attack, and return the longest turn meanwhile, in seconds; `within` it no further try is needed.

        Other processes take the caches and the pages of this one, so a turn that was too long must be so each time.
        """
        turns: list[float] = []
        while len(turns) < _TRIES and (not turns or turns[-1] > within):
            if turns:
                await asyncio.sleep(_PAUSE_SECONDS)
            self.reset_probe()
            await attack()
            turns.append(await self.longest_turn())
        return min(turns)

    async def longest_turn(self) -> float:
        """Return the longest turn since the last reset, in seconds, at most a millisecond too long."""
        _, ticks = self._probe.read()
        async with asyncio.timeout(10):
            # The turn that runs now counts too.
            while self._probe.read()[1] < ticks + 2:  # noqa: ASYNC110  the other process can set no event
                await asyncio.sleep(_TICK_SECONDS)
        return self._probe.read()[0]


class _Shared:
    """The values in the file."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._octets = mmap.mmap(file.fileno(), _VALUES.size)

    def read(self) -> tuple[float, int]:
        longest, ticks = _VALUES.unpack_from(self._octets)
        return longest, ticks

    def write(self, longest: float, ticks: int) -> None:
        _VALUES.pack_into(self._octets, 0, longest, ticks)


class _Probe:
    """Looks at the loop every millisecond: what its thread has worked in between is a turn, or a few short ones."""

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._before = time.thread_time()
        self._tick()

    @classmethod
    def start(cls, path: str) -> Self:
        return cls(_Shared(Path(path)))

    def _tick(self) -> None:
        now = time.thread_time()
        longest, ticks = self._shared.read()
        self._shared.write(max(longest, now - self._before), ticks + 1)
        self._before = now
        self._loop.call_later(_TICK_SECONDS, self._tick)


def main() -> None:
    """Run the command line of otpmail, with the measure on the loop of the service."""
    from otpmail.__main__ import main as otpmail
    from otpmail.app import App

    if os.environ[_LOOP] == "asyncio":
        uvloop.run = asyncio.run  # type: ignore[assignment]  # it takes what the service gives it
    run = App.run

    async def measured(app: App, *arguments: Any, **more: Any) -> None:
        _Probe.start(os.environ[_FILE])
        await run(app, *arguments, **more)

    App.run = measured  # type: ignore[assignment,method-assign]  # what it returns is the same
    otpmail()


if __name__ == "__main__":
    main()
