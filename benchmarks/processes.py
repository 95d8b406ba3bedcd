"""Runs the programs of a benchmark: what is measured and what measures are processes, which print lines of JSON."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import otpmail
from benchmarks.memory import resident

_PATH = os.pathsep.join(str(path) for path in (Path(otpmail.__file__).parents[1], Path(__file__).parents[1]))
_SETPRIV = shutil.which("setpriv")
_WITH_PARENT = () if _SETPRIV is None else (_SETPRIV, "--pdeathsig", "KILL")  # a killed run leaves nothing behind
_LONGEST_LINE = 1 << 20
_TIMEOUT_SECONDS = 240  # the longest measurement takes a quarter of that


class Process:
    """`python -m` a module, in an empty directory and with an environment of only the given variables."""

    def __init__(self, module: str, *arguments: object, **environment: object) -> None:
        self._command = ("-m", module, *map(str, arguments))
        self._environment = {name: str(value) for name, value in environment.items()}
        self._directory = tempfile.TemporaryDirectory(prefix="otpmail-benchmark-")
        self._process: asyncio.subprocess.Process | None = None
        self._lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._other_output: list[str] = []  # lines that are not JSON: a traceback, as a rule
        self._reader: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Process {self._command[1]} pid={self._process.pid if self._process else None}>"

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *_WITH_PARENT,
            sys.executable,
            *self._command,
            cwd=self._directory.name,
            env={"PATH": os.defpath, "HOME": self._directory.name, "PYTHONPATH": _PATH, **self._environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LONGEST_LINE,
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._reader is not None
        if not self._reader.done():  # else the process has ended, and its exit status is still to be collected
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        await self._reader
        self._directory.cleanup()

    async def line(self, **wanted: object) -> dict[str, Any]:
        """Return the next line of JSON with these fields; a field wanted as `...` may hold any value.

        Raises RuntimeError, with all output, when the process ends before that line, or prints nothing like it for
        four minutes.
        """
        how = "ended"
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                while (line := await self._lines.get()) is not None:
                    if all(name in line and value in (..., line[name]) for name, value in wanted.items()):
                        return line
                    self._other_output.append(json.dumps(line))
        except TimeoutError:
            how = f"printed no line with {wanted or 'JSON'} in {_TIMEOUT_SECONDS} s"
        raise RuntimeError(f"{self!r} {how}:\n" + "\n".join(self._other_output))

    def terminate(self) -> None:
        """Send SIGTERM."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    @property
    def pid(self) -> int:
        """The id of the process."""
        assert self._process is not None
        return self._process.pid

    @property
    def cpu(self) -> float:
        """The processor time used so far by it and its children, in seconds; 0 on systems other than Linux."""
        assert self._process is not None
        if sys.platform != "linux":
            return 0.0
        return cpu_of(self._process.pid) + sum(self.cpu_of_children)

    @property
    def cpu_of_children(self) -> list[float]:
        """The processor time used so far by each of its children, in seconds; nothing on systems other than Linux."""
        assert self._process is not None
        if sys.platform != "linux":
            return []
        pid = self._process.pid
        return [cpu_of(int(child)) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]

    @property
    def resident(self) -> int:
        """The resident memory, in bytes; 0 on systems other than Linux."""
        assert self._process is not None
        return resident(self._process.pid)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            text = raw.decode("utf-8", "backslashreplace").rstrip()
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                self._other_output.append(text)
            else:
                self._lines.put_nowait(line)
        self._lines.put_nowait(None)


def cpu_of(pid: int) -> float:
    """Return the processor time that a process has used so far, in seconds. On Linux only."""
    return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3), which Python does not offer


async def run(module: str, *arguments: object, **environment: object) -> dict[str, Any]:
    """Run a program that prints its result as one line of JSON, and return that line."""
    async with Process(module, *arguments, **environment) as process:
        return await process.line()
