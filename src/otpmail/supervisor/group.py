"""The processes of a service that run now: what they say together about their health and their metrics."""

import asyncio
import logging
from collections.abc import Iterator

from otpmail.supervisor.metrics import MergedMetrics
from otpmail.supervisor.process import Process
from otpmail.telemetry.logs import log_event

ANSWER_SECONDS = 3.0
"""How long a process may take to answer before it counts as one that hangs."""


class ProcessGroup:
    """The processes that run, by their numbers, those that hang, and the merged metrics.

    A process hangs if it does not answer within `answer_seconds`.
    """

    def __init__(self, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._answer_seconds = answer_seconds
        self._running: dict[int, Process] = {}
        self._hung: set[int] = set()  # the ids of those that did not answer
        self._begun = 0  # how many refreshes have begun
        self._refreshing = asyncio.Lock()
        self.metrics = MergedMetrics(self.__len__)

    def __repr__(self) -> str:
        return f"<ProcessGroup {list(self)!r}>"

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[Process]:
        return iter(list(self._running.values()))

    def add(self, process: Process) -> None:
        """Take up a process that has started."""
        self._running[process.number] = process

    def remove(self, process: Process) -> None:
        """Leave out a process that has ended; its counts stay."""
        del self._running[process.number]
        self.metrics.add_ended(process.families)

    @property
    def problem(self) -> str:
        """Why callers should not come here now; empty while a process serves."""
        if any(process.serves for process in self):
            return ""
        found = [(process.number, process.problem or "the process does not answer") for process in self]
        if len({problem for _, problem in found}) == 1:  # as if there were one process
            return found[0][1]
        return "; ".join(f"process {number}: {problem}" for number, problem in found) or "no process runs"

    @property
    def hang(self) -> str:
        """Which processes do not go on; empty while all that have started answer."""
        hung = (process for process in self if not process.answers)
        return "; ".join(f"process {process.number} (pid {process.pid}) does not answer" for process in hung)

    def tell_others(self) -> None:
        """Tell each process whether another one serves, as all of them report it in their health."""
        serving = {process.number for process in self if process.serves}
        for process in self:
            process.tell_others_serve(serve=bool(serving - {process.number}))

    async def refresh(self) -> None:
        """Ask all processes for their metrics, and merge those; log which of them have stopped answering.

        Calls that come while one refresh runs share the next one, so that a flood of calls asks no process more often.
        """
        before = self._begun
        async with self._refreshing:
            if self._begun == before:
                self._begun += 1
                await self._refresh()

    async def _refresh(self) -> None:
        await asyncio.gather(*(process.ask(self._answer_seconds) for process in self))
        hung = {process.pid for process in self if not process.answers}
        for process in self:
            if (process.pid in hung) != (process.pid in self._hung):
                self._log_hang(process)
        self._hung = hung
        self.metrics.refresh(process.families for process in self)

    def _log_hang(self, process: Process) -> None:
        if process.answers:
            text = f"process {process.number} (pid {process.pid}) answers again"
            log_event(logging.INFO, "process-answers", text, process=process.number, pid=process.pid)
        else:
            text = f"process {process.number} (pid {process.pid}) has not answered for {self._answer_seconds:g} s"
            log_event(logging.ERROR, "process-hangs", text, process=process.number, pid=process.pid)
