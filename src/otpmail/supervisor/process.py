"""One process of a service, as its supervisor sees it: its start, its log, what it reports, and its end."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from threading import Event
from time import monotonic

import otpmail
from otpmail.held_port import HeldPort
from otpmail.probes import Probe, Request, Response
from otpmail.settings import Settings
from otpmail.settings.portions import Portion
from otpmail.supervisor import MARK
from otpmail.supervisor.channel import Assignment, Channel, Message, pack_response
from otpmail.supervisor.merge import Family
from otpmail.threads import start_daemon

SERVE = (sys.executable, "-P", "-m", "otpmail", "serve")
"""The command of a process: a fresh interpreter, since gRPC does not survive a fork."""

log = logging.getLogger("otpmail")
_LONGEST_LINE = 1 << 20
_KILL_SECONDS = 1.0
_STARTING = "the process is starting"


class Process:
    """A process that was started. `changed` is called whenever what it reports changes, `log` with lines of its log.

    It gets the sockets of HTTP_PORT in `http`, and `probe` answers what it is asked there for all processes.

    Raises OSError, or RuntimeError for want of a thread, where the system lets none start. It has a session of its own,
    so that a Ctrl-C reaches the supervisor alone, which then stops all.
    """

    def __init__(
        self,
        portion: Portion,
        command: Sequence[str],
        *,
        http: Iterable[socket.socket],
        probe: Probe,
        changed: Callable[[], None],
        log: Callable[[Iterable[bytes]], None],
    ) -> None:
        self._http = tuple(opened.fileno() for opened in http)
        self._probe = probe
        self._answering: set[asyncio.Task[None]] = set()
        self.number = portion.number
        self._portion = portion
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        """Its exit code once it has ended and its log is passed on, negative for the number of a signal."""
        self.is_ready = False
        self.problem = _STARTING
        """Why it should not be called now; empty while it serves."""
        self.others_serve = False
        """Whether others serve, as it was last told."""
        self.families: list[Family] = []
        """Its latest metrics."""
        self.answers = True
        """Whether it answered the last question in time; one that is not ready has none to answer in time."""
        self.silent_seconds = 0.0
        """For how long it had not answered when it was last asked in vain; 0 if it has answered since."""
        self.told_to_end: float | None = None
        """When `tell_to_end` was called, on the monotonic clock."""
        self._answered: asyncio.Future[None] | None = None
        self._asked = 0.0
        self._stopping = False
        self._gone = Event()
        self._channel: Channel | None = None
        self._end, self._popen = self._start(command, log)
        self.pid = self._popen.pid

    def _start(
        self, command: Sequence[str], log: Callable[[Iterable[bytes]], None]
    ) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        """Start it; returns our end of the channel, and the process."""
        with ExitStack() as opened:
            ours, theirs = map(opened.enter_context, socket.socketpair())
            popen = _spawn(command, theirs, self._http)
            start_daemon(partial(self._watch, popen, log), f"log of process {self.number}")
            opened.pop_all()
        theirs.close()
        return ours, popen

    def __repr__(self) -> str:
        return f"<Process {self.number} pid={self.pid} problem={self.problem!r}>"

    @property
    def serves(self) -> bool:
        """Whether it can be called."""
        return self.is_ready and self.answers and not self.problem

    async def run(self, settings: Settings, held: HeldPort) -> int:
        """Say what it is to be, take its reports until it ends, and return its exit code."""
        self._channel = channel = await Channel.over(self._end)
        channel.assign(Assignment(self._portion, settings, held.hosts, held.port, self._http))
        if self._stopping:
            self.stop()
        try:
            while (message := await channel.receive()) is not None:
                self._take(message)
            return await asyncio.shield(self.ended)
        finally:
            for answering in self._answering:
                answering.cancel()
            self.is_ready, self.problem = False, "the process has ended"
            channel.close()

    async def ask(self, seconds: float) -> None:
        """Ask for its metrics, and note whether it answers in so many seconds.

        Its silence is measured up to the beginning of this call. So a supervisor that was itself suspended meets the
        answers that came meanwhile before it calls a process silent.
        """
        if self._channel is None:
            return
        answered = self._answered
        if answered is None or answered.done():  # else the last question is still open
            answered = self._answered = self._loop.create_future()
            self._asked = monotonic()
            self._channel.send({"tell": "metrics"})
        silent = monotonic() - self._asked
        await asyncio.wait((answered, self.ended), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        has_answered = answered.done() or self.ended.done()  # another call may have asked the next question by now
        self.answers = has_answered or not self.is_ready
        self.silent_seconds = 0.0 if has_answered else silent

    def tell_others_serve(self, *, serve: bool) -> None:
        """Tell it whether another process serves, if that is news."""
        if self._channel is not None and serve != self.others_serve:
            self.others_serve = serve
            self._channel.send({"others": serve})

    def stop(self) -> None:
        """Let it finish what it has accepted, and end. Safe to repeat."""
        self._stopping = True
        if self._channel is not None:
            self._channel.send({"do": "stop"})

    def reload(self) -> None:
        """Let it read its settings again."""
        if self._channel is not None:
            self._channel.send({"do": "reload"})

    def tell_to_end(self) -> None:
        """Send SIGTERM, which a process that hangs meets when it goes on. Safe to repeat, since a second one kills."""
        if self.told_to_end is None:
            self.told_to_end = monotonic()
            self.send_signal(signal.SIGTERM)

    def end_at_once(self) -> None:
        """End it as a second signal does, with a line about what is lost."""
        for number in (signal.SIGINT, signal.SIGTERM):  # the second of two ends it, whether or not it is stopping
            self.send_signal(number)

    def wait(self, seconds: float) -> None:
        """Block until it has ended; kill it where that takes so many seconds."""
        if not self._gone.wait(seconds):
            self.send_signal(signal.SIGKILL)
            self._gone.wait(_KILL_SECONDS)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens where it has ended."""
        with suppress(ProcessLookupError):
            self._popen.send_signal(number)

    def _take(self, message: Message) -> None:
        match message:
            case {"probe": number, "request": request}:
                answering = self._loop.create_task(self._answer(number, Request(**request)))
                self._answering.add(answering)
                answering.add_done_callback(self._answering.discard)
            case {"ready": True}:
                self.is_ready = True
                self._changed()
            case {"problem": problem}:
                self.problem = problem
                self._changed()
            case {"metrics": families}:
                self.families = families
                if self._answered is not None and not self._answered.done():
                    self._answered.set_result(None)

    async def _answer(self, number: int, request: Request) -> None:
        try:
            response = await self._probe(request)
        except Exception:
            log.exception("no answer to %s %s", request.method, request.path)
            response = Response(HTTPStatus.INTERNAL_SERVER_ERROR, b"")
        assert self._channel is not None
        self._channel.send({"probed": number, "response": pack_response(response)})

    def _watch(self, popen: subprocess.Popen[bytes], pass_on: Callable[[Iterable[bytes]], None]) -> None:
        """Pass on whole lines of its log until it ends. Runs in a thread, which waits for the process too."""
        assert popen.stdout is not None
        try:
            with popen.stdout as output:
                for lines in _lines(output.fileno()):
                    pass_on(lines)
        except Exception:
            log.exception("the log of process %d (pid %d) can't be read, and it is killed", self.number, popen.pid)
            popen.kill()
        code = popen.wait()
        self._gone.set()
        with suppress(RuntimeError):  # the loop has ended, and the service with it
            self._loop.call_soon_threadsafe(self.ended.set_result, code)


def _spawn(command: Sequence[str], stdin: socket.socket, passed: Collection[int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  the service itself, unless a test has another command
        list(command),
        stdin=stdin.fileno(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, MARK: "1", **_path_of_package()},
        start_new_session=True,
        pass_fds=passed,
    )


def _lines(descriptor: int) -> Iterator[list[bytes]]:
    """Yield the lines that come together; one that is too long is cut."""
    rest = b""
    while octets := os.read(descriptor, 1 << 16):
        *lines, rest = (rest + octets).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        if lines:
            yield [line + b"\n" for line in lines]
    if rest:
        yield [rest + b"\n"]


def _path_of_package() -> dict[str, str]:
    """Return the variable with which the process finds this package, if only the working directory has led here.

    With -P the process does not look there, where a file may have the name of a library.
    """
    found = Path(otpmail.__file__).parents[1]
    if sys.flags.safe_path or Path(sys.path[0]).resolve() != found:
        return {}
    given = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join((str(found), *([given] if given else ())))}
