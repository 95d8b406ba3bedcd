"""Supervises the processes of one service: its ports, one /metrics, one log, one stop, one exit code."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from random import random
from time import monotonic
from typing import Any

from otpmail.backoff import exponential, jittered
from otpmail.held_port import HeldPort, hold_port
from otpmail.settings import Settings
from otpmail.settings.portions import Portion, portions
from otpmail.supervisor.group import ANSWER_SECONDS, ProcessGroup
from otpmail.supervisor.process import SERVE, Process
from otpmail.telemetry.exposition import Exposition
from otpmail.telemetry.logs import log_event
from otpmail.web.binding import announce, close_sockets, open_sockets

log = logging.getLogger("otpmail")
_FAILED = 1
_FIRST_WAIT = 0.5  # before a process that has ended is started again, doubled each time
_LONGEST_WAIT = 30.0
_JITTER = 0.2
_START_SECONDS = 60.0  # in which a process answers for the first time, also on a slow machine
_STEADY_SECONDS = 60.0  # a process that lived longer has not failed in a row with the one before
_GRACE_SECONDS = 5.0  # beside DRAIN_SECONDS, for the last answers and for what closes
_LAST_WORDS_SECONDS = 3.0  # after a second signal; a process whose loop turns needs milliseconds
_LOOK_SECONDS = 2.0  # between two looks at the metrics: what a process counted after the last one ends with it


class Supervisor:
    """Runs `command` as PROCESSES processes, and passes the lines of their logs to `log`.

    Build it inside a running loop. `first_wait` are the seconds before a process that has ended is started again,
    `grace` those that a stop may take beside DRAIN_SECONDS. All processes are looked at every `look_seconds`, and have
    `answer_seconds` to answer.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        log: Callable[[Iterable[bytes]], None],
        command: Sequence[str] = SERVE,
        first_wait: float = _FIRST_WAIT,
        grace: float = _GRACE_SECONDS,
        look_seconds: float = _LOOK_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.settings = settings
        """The settings of the whole service; a process that starts gets those of that moment."""
        self._log = log
        self._command = command
        self._first_wait = first_wait
        self._grace = grace
        self._look_seconds = look_seconds
        self._group = ProcessGroup(answer_seconds=answer_seconds)
        self._starting: set[int] = set()  # numbers of processes that have not bound the port yet
        self._codes: list[int] = []  # the exit codes of processes that are not started again
        self._stopping = asyncio.Event()
        self._served = asyncio.Event()  # once a process has served
        self._failed = asyncio.Event()  # if the first one ended before it did, or a part of this supervisor failed
        self._http: list[socket.socket] = []  # of HTTP_PORT, which all processes have too
        self._probes = Exposition(
            self._group.metrics.registry,
            lambda: "the service is stopping" if self._stopping.is_set() else self._group.problem,
            hang=lambda: self._group.hang,
            refresh=self._group.refresh,
        )

    def __repr__(self) -> str:
        return f"<Supervisor {self._group!r}{' stopping' * self._stopping.is_set()}>"

    async def run(self, stop: asyncio.Event) -> int:
        """Hold the ports and run the processes until `stop` is set. Then stop them, and return the exit code.

        A process that ends is started again. But the first one starts alone, and its end before it serves is that of
        the service. A part of the supervisor that fails stops the service in order, and so does a cancellation. Raises
        SettingsError when the port can't be bound.
        """
        server = self.settings.server
        with hold_port(server.hosts, server.port) as port:
            self._log_start(port)
            try:
                if server.http_port is not None:
                    port.bar()  # so that the same port is no free one
                    self._http, http_port = await open_sockets(server.http_host, server.http_port)
                    announce(server, http_port)
                await self._run_all(port, stop)
            finally:
                close_sockets(self._http)
        code = max(self._codes, default=0)
        if not self._failed.is_set():  # else the process has said why
            text = "all processes have stopped"
            log_event(logging.ERROR if code else logging.INFO, "stopped", text, exit_code=code)
        return code

    def reload(self, settings: Settings) -> None:
        """Let all processes read their settings again; those that start later get these."""
        self.settings = settings
        for process in self._group:
            process.reload()

    def give_up(self) -> None:
        """End all processes at once, whatever is in flight. Blocks for a moment."""
        for process in self._group:
            process.end_at_once()
        ends = monotonic() + _LAST_WORDS_SECONDS
        for process in self._group:
            process.wait(max(0.0, ends - monotonic()))

    def _log_start(self, port: HeldPort) -> None:
        for host in port.absent:
            address = host.with_port(port.port)
            text = f"not listening on {address}: this machine does not have that address"
            log_event(logging.INFO, "address-absent", text, address=address)
        addresses = [host.with_port(port.port) for host in port.hosts]
        count = self.settings.server.processes
        text = f"{count} processes share {', '.join(addresses)}"
        log_event(logging.INFO, "supervising", text, processes=count, addresses=addresses)

    async def _run_all(self, port: HeldPort, stop: asyncio.Event) -> None:
        first, *others = portions(self.settings.server.processes)
        async with asyncio.TaskGroup() as tasks:
            looking = tasks.create_task(self._own(self._look_forever()))
            keeping = [tasks.create_task(self._own(self._keep(first, port)))]
            try:
                await _either(self._served, self._failed, stop)  # so that what ends every process is logged once
                if self._served.is_set():
                    keeping += [tasks.create_task(self._own(self._keep(portion, port))) for portion in others]
                await _either(self._failed, stop)
            finally:
                await self._stop(keeping)
                looking.cancel()

    async def _own(self, part: Coroutine[Any, Any, None]) -> None:
        """Run a part of the supervisor. If it fails the service stops, and goes on without none of its parts."""
        try:
            await part
        except Exception:
            log.exception("a part of the supervisor has failed, and all processes are stopped")
            self._codes.append(_FAILED)
            self._failed.set()

    async def _look_forever(self) -> None:
        while True:
            await asyncio.sleep(self._look_seconds)
            await self._group.refresh()
            if not self._stopping.is_set():
                self._group.tell_others()
                self._end_hung()

    def _end_hung(self) -> None:
        """End each process that has not answered for PROCESS_HANG_SECONDS, so that another takes its place.

        One that starts has a minute at least. SIGTERM stops a process in order that goes on after all, and SIGKILL
        follows once it has had the time of a stop.
        """
        setting = self.settings.server.process_hang_seconds
        for process in self._group:
            limit = setting if process.is_ready else max(setting, _START_SECONDS)
            if not setting or process.silent_seconds < limit:
                continue
            if process.told_to_end is None:
                text = f"process {process.number} (pid {process.pid}) has not answered for {limit:g} s and is stopped"
                log_event(logging.ERROR, "process-stopped", text, process=process.number, pid=process.pid)
                process.tell_to_end()
            elif monotonic() - process.told_to_end >= self._stop_seconds:
                self._kill(process)

    async def _stop(self, keeping: Iterable[asyncio.Task[None]]) -> None:
        self._stopping.set()
        close_sockets(self._http)  # so that connections are refused once the last process takes none
        for process in self._group:
            process.stop()
        _, late = await asyncio.wait(keeping, timeout=self._stop_seconds)
        if late:
            for process in self._group:
                self._kill(process)
            await asyncio.wait(late)

    @property
    def _stop_seconds(self) -> float:
        """How long a process may take to stop."""
        server = self.settings.server
        return server.lameduck_seconds + server.drain_seconds + self._grace

    def _kill(self, process: Process) -> None:
        text = f"process {process.number} (pid {process.pid}) has not stopped in {self._stop_seconds:g} s and is killed"
        log_event(logging.ERROR, "process-killed", text, process=process.number, pid=process.pid)
        process.send_signal(signal.SIGKILL)

    # One process.

    async def _keep(self, portion: Portion, port: HeldPort) -> None:
        """Run a process, and start it again whenever it ends, until the stop."""
        failures = 0
        while not self._stopping.is_set():
            began = monotonic()
            code = await self._run_process(portion, port)
            if self._stopping.is_set():
                self._codes.append(code if code >= 0 else _FAILED)
                return
            if not self._served.is_set():
                self._codes.append(128 - code if code < 0 else code or _FAILED)
                self._failed.set()
                return
            failures = 1 if monotonic() - began > _STEADY_SECONDS else failures + 1
            wait = exponential(failures, first=self._first_wait, cap=_LONGEST_WAIT)
            await self._pause(portion.number, code, jittered(wait, _JITTER, random))

    async def _run_process(self, portion: Portion, port: HeldPort) -> int:
        """Run a process until it ends; returns its exit code, negative for a signal."""
        port.admit()
        try:
            process = Process(
                portion,
                self._command,
                http=self._http,
                probe=self._probes.answer,
                changed=lambda: self._note(process, port),
                log=self._log,
            )
        except (OSError, RuntimeError) as error:  # no memory, or a limit on processes
            text = f"process {portion.number} can't be started: {error}"
            log_event(logging.ERROR, "process-not-started", text, process=portion.number)
            self._bar(port)
            return _FAILED
        self._starting.add(portion.number)
        self._group.add(process)
        text = f"process {portion.number} started, pid {process.pid}"
        log_event(logging.INFO, "process-started", text, process=portion.number, pid=process.pid)
        try:
            return await process.run(self.settings, port)
        except Exception:
            log.exception("process %d (pid %d) can't be followed, and is killed", portion.number, process.pid)
            process.send_signal(signal.SIGKILL)
            return await process.ended
        finally:
            self._group.remove(process)
            self._note(process, port)

    async def _pause(self, number: int, code: int, seconds: float) -> None:
        """Log why a process ended, and wait to start it again; the stop ends the wait."""
        fields = {"signal": _signal_name(-code)} if code < 0 else {"exit_code": code}
        ending = f"was killed by {fields['signal']}" if code < 0 else f"ended with exit code {code}"
        text = f"process {number} {ending}; it starts again in {seconds:.1f} s"
        level = logging.ERROR if code else logging.WARNING
        log_event(level, "process-ended", text, process=number, retry_after=round(seconds, 3), **fields)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        if not self._stopping.is_set():
            self._group.metrics.count_restart()

    def _note(self, process: Process, port: HeldPort) -> None:
        """Act on what a process has reported, or on its end."""
        if process.is_ready and process.number in self._starting:
            text = f"process {process.number} is ready"
            log_event(logging.DEBUG, "process-ready", text, process=process.number, pid=process.pid)
            self._served.set()
        if process.is_ready or process.ended.done():
            self._starting.discard(process.number)
            self._bar(port)
        if not self._stopping.is_set():  # else none serves any more, whatever it has not reported yet
            self._group.tell_others()

    def _bar(self, port: HeldPort) -> None:
        if not self._starting:
            port.bar()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the real-time signals, of which Python names the first and the last
        return f"signal {number}"


async def _either(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
