"""The service as a process, for tests of the whole: settings in the environment, gRPC in, logs out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal as signals
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import otpmail
from lifelines import with_parent
from otpmail.original import mail_pb2_grpc as original_mail_grpc
from otpmail.v1 import address_pb2_grpc, mail_pb2_grpc, otp_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from relay import Certificates, Relay

LogLine = dict[str, object]
SOURCES = str(Path(otpmail.__file__).parents[1])
"""For PYTHONPATH, so that a process runs what the tests import."""

FAILS_ON_SIGNAL = """
import asyncio, signal
from otpmail.store.memory import MemoryChallengeStore

early = []
signal.signal(signal.SIGUSR1, lambda *_: early.append(True))  # the test may be ahead of the part

async def sweep(*_):
    signalled = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, signalled.set)
    if not early:
        await signalled.wait()
    raise RuntimeError("boom")

MemoryChallengeStore.sweep_forever = sweep
"""
"""A `sitecustomize` with which a part of the service fails once SIGUSR1 comes."""

_PYTHON_PATH = os.pathsep.join((SOURCES, str(Path(__file__).parent)))
_LONGEST_LINE = 1 << 20
_DEFAULTS: dict[str, object] = {
    "HOST": "127.0.0.1",
    "PORT": 0,
    "LOG_FORMAT": "json",
    "EMAIL": "user",
    "APP_PASSWORD": "secret",
    "EMAIL_FROM": "codes@example.org",
}
_output = logging.getLogger(__name__)
_output.setLevel(logging.DEBUG)  # pytest then shows the process's output beside a failed test


class ServiceExitedError(Exception):
    """The process ended while a test waited for it; carries its exit code and its output."""

    def __init__(self, exit_code: int, output: list[str]) -> None:
        """Keep both, and show both."""
        super().__init__(f"the service exited with {exit_code}:\n" + "\n".join(output))
        self.exit_code = exit_code
        self.output = output

    @property
    def refusals(self) -> list[str]:
        """Why it did not start, by the lines of a log in JSON."""
        lines = [json.loads(line) for line in self.output]
        return [line["message"] for line in lines if line["event"] == "refused"]


class Service:
    """One process of the service, whose environment has nothing but the settings given here.

    Its working directory is empty, so that it finds no `.env`. A setting given as None is left out, also if it has a
    default here; a bool is written as true or false.
    """

    module = "otpmail"
    """The module that Python runs."""

    def __init__(self, *, command: str = "serve", **settings: object) -> None:
        """Take the settings by their names in the environment; `command` may be "dev" too."""
        self.log: list[LogLine] = []
        self.output: list[str] = []  # every line it wrote, logs included
        self._command = command
        self._target = asyncio.subprocess.PIPE
        self._settings = _DEFAULTS | settings
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._channel: grpc.aio.Channel | None = None
        self._changed = asyncio.Event()

    @classmethod
    def writing_to(cls, target: int, *, command: str = "serve", **settings: object) -> Self:
        """Make a service whose standard output and error are a descriptor that this object does not read.

        Its HOST must be a Unix socket, since its log can't be asked for a port.
        """
        service = cls(command=command, **settings)
        service._target = target
        return service

    def __repr__(self) -> str:
        """Show the process and its last events."""
        pid = self.pid if self._process else None
        return f"<Service {self._command} pid={pid} log={[line.get('event') for line in self.log[-5:]]}>"

    async def __aenter__(self) -> Self:
        """Start."""
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    # The process.

    async def start(self, timeout: float = 60) -> None:
        """Start the process and return once it listens. Raises ServiceExitedError if it ends instead."""
        await self.spawn()
        await self.wait_for_log("listening", timeout=timeout)

    async def refused(self, exit_code: int) -> list[str]:
        """Start in vain: return why, by the lines of the log, once the process has ended with this exit code."""
        with pytest.raises(ServiceExitedError) as caught:
            async with self:
                pass
        assert caught.value.exit_code == exit_code, caught.value
        return caught.value.refusals

    async def spawn(self) -> None:
        """Start the process and return at once."""
        home = str(self.make_directory())
        self.log.clear()
        self.output.clear()
        self._process = await asyncio.create_subprocess_exec(
            *with_parent(),
            sys.executable,
            "-m",
            self.module,
            self._command,
            cwd=home,
            env=self._environment(home),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self._target,
            stderr=self._target,
            limit=_LONGEST_LINE,
        )
        streams = self._process.stdout, self._process.stderr
        self._readers = [asyncio.create_task(self._read(stream)) for stream in streams if stream is not None]

    def make_directory(self) -> Path:
        """Make the working directory, for files that are there before the first start, and return it."""
        self._directory = self._directory or tempfile.TemporaryDirectory(prefix="otpmail-test-")
        return Path(self._directory.name)

    async def wait_exited(self, timeout: float = 30) -> int:
        """Return the exit code once the process has ended and all it wrote is read."""
        process = self._running()
        async with asyncio.timeout(timeout):
            code = await process.wait()
            if self._readers:
                await asyncio.wait(self._readers)
        for reader in self._readers:
            reader.result()  # raises what kept it from reading
        return code

    async def stop(self, signal: signals.Signals = signals.SIGTERM, timeout: float = 30) -> int:
        """Send the signal and return the exit code. Raises TimeoutError, after a kill, when it takes longer."""
        self.send(signal)
        try:
            return await self.wait_exited(timeout)
        except TimeoutError as error:
            await self.kill()
            message = f"still there {timeout} s after {signal.name}: {self!r}"
            raise TimeoutError(message) from error

    def send(self, signal: signals.Signals) -> None:
        """Send a signal and return at once; a process that has ended already is left alone."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):  # it ended a moment ago
                self._running().send_signal(signal)

    async def kill(self) -> None:
        """End the process with SIGKILL."""
        self.send(signals.SIGKILL)
        await self.wait_exited()

    async def close(self) -> None:
        """Leave nothing behind: no process, no channel, no directory."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None
        if self._process is not None:
            await self.kill()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    @property
    def pid(self) -> int:
        """The id of the process that was started last."""
        return self._running().pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._running().returncode

    @property
    def directory(self) -> Path:
        """The working directory and HOME of the process; lives from the first start until `close`."""
        if self._directory is None:
            message = "not started"
            raise RuntimeError(message)
        return Path(self._directory.name)

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            message = "not started"
            raise RuntimeError(message)
        return self._process

    def _environment(self, home: str) -> dict[str, str]:
        given = {name: _as_text(value) for name, value in self._settings.items() if value is not None}
        return {"PATH": os.environ.get("PATH", os.defpath), "HOME": home, "PYTHONPATH": _PYTHON_PATH, **given}

    # Its log.

    async def wait_for_log(
        self,
        event: str,
        *,
        count: int = 1,
        timeout: float = 30,
        **fields: object,
    ) -> LogLine:
        """Return the first, or `count`th, line with that event and those fields, past lines included."""

        def found() -> bool:
            return len(self.logged(event, **fields)) >= count

        await self._wait(found, f"{count} x {event} {fields or ''}", timeout)
        return self.logged(event, **fields)[count - 1]

    async def wait_for_output(self, part: str, *, timeout: float = 30) -> str:
        """Return the first line of output, past lines included, that holds `part`."""

        def found() -> list[str]:
            return [line for line in self.output if part in line]

        await self._wait(lambda: bool(found()), f"{part!r} in the output", timeout)
        return found()[0]

    def logged(self, event: str, **fields: object) -> list[LogLine]:
        """Return the lines so far with that event and those fields."""
        wanted = {"event": event, **fields}
        return [line for line in self.log if wanted.items() <= line.items()]

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for raw in stream:
            text = raw.decode("utf-8", "backslashreplace").rstrip()
            _output.debug("%s", text)
            self.output.append(text)
            with contextlib.suppress(json.JSONDecodeError):  # a traceback is no log line, yet stays in the output
                line = json.loads(text)
                if isinstance(line, dict):
                    self.log.append(line)
            self._notify()
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait(self, happened: Callable[[], bool], what: str, seconds: float) -> None:
        ended = asyncio.create_task(self.wait_exited(seconds + 1))
        try:
            async with asyncio.timeout(seconds):
                while not happened():
                    if ended.done():
                        raise ServiceExitedError(ended.result(), self.output)
                    changed = asyncio.create_task(self._changed.wait())
                    await asyncio.wait({changed, ended}, return_when=asyncio.FIRST_COMPLETED)
                    changed.cancel()
        except TimeoutError as error:
            message = f"waited {seconds} s for {what}: {self!r}"
            raise TimeoutError(message) from error
        finally:
            ended.cancel()

    # Its calls.

    @property
    def address(self) -> str:
        """The address it listens on, for instance "127.0.0.1:34567"."""
        if self._target != asyncio.subprocess.PIPE:
            return str(self._settings["HOST"])
        return str(self.logged("listening")[0]["address"])

    @property
    def channel(self) -> grpc.aio.Channel:
        """A channel to it, opened at first use and closed by `close`."""
        if self._channel is None:
            direct = (("grpc.enable_http_proxy", 0),)  # the machine's proxy does not reach its loopback
            self._channel = grpc.aio.insecure_channel(self.address, direct)
        return self._channel

    @property
    def otp(self) -> otp_pb2_grpc.OtpServiceAsyncStub:
        """otpmail.v1.OtpService."""
        return otp_pb2_grpc.OtpServiceStub(self.channel)

    @property
    def address_service(self) -> address_pb2_grpc.AddressServiceAsyncStub:
        """otpmail.v1.AddressService."""
        return address_pb2_grpc.AddressServiceStub(self.channel)

    @property
    def mail(self) -> mail_pb2_grpc.MailServiceAsyncStub:
        """otpmail.v1.MailService."""
        return mail_pb2_grpc.MailServiceStub(self.channel)

    @property
    def original_otp(self) -> original_mail_grpc.OtpServiceAsyncStub:
        """mail.OtpService, the original contract."""
        return original_mail_grpc.OtpServiceStub(self.channel)

    @property
    def original_mail(self) -> original_mail_grpc.MailServiceAsyncStub:
        """mail.MailService, the original contract."""
        return original_mail_grpc.MailServiceStub(self.channel)

    async def wait_until_serving(self, service: str = "", timeout: float = 30) -> None:
        """Return once its health is SERVING, which for the service as a whole means that a relay is up."""
        await self.wait_for_health(health_pb2.HealthCheckResponse.SERVING, service, timeout)

    async def wait_for_health(
        self,
        status: int,
        service: str = "",
        timeout: float = 30,
    ) -> None:
        """Return once its health is `status`."""
        stub: Any = health_pb2_grpc.HealthStub(self.channel)  # whose types know no methods
        call = stub.Watch(
            health_pb2.HealthCheckRequest(service=service),
            wait_for_ready=self._target != asyncio.subprocess.PIPE,  # nothing else says when it listens
        )
        seen = None
        try:
            async with asyncio.timeout(timeout):
                async for response in call:
                    seen = response.status
                    if seen == status:
                        return
        except TimeoutError as error:
            message = f"its health was {seen}, not {status}, for {timeout} s: {self!r}"
            raise TimeoutError(message) from error
        finally:
            call.cancel()
        message = f"it stopped telling its health at {seen}: {self!r}"
        raise ConnectionError(message)


def relay_settings(relay: Relay, certificates: Certificates, token_file: Path) -> dict[str, Any]:
    """Return the settings that make a service use this relay; writes the token to the file if the relay wants one."""
    faults = relay.faults
    settings: dict[str, Any] = {
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_PORT": relay.port,
        "EMAIL_SECURITY": faults.security,
        "EMAIL_CA_FILE": certificates.ca_file,
        "EMAIL": faults.username if faults.auth else None,
        "APP_PASSWORD": faults.password if faults.auth else None,
    }
    if faults.auth in {("XOAUTH2",), ("OAUTHBEARER",)}:
        token_file.write_text(faults.token, encoding="utf-8")
        settings |= {"EMAIL_AUTH": faults.auth[0].lower(), "EMAIL_TOKEN_FILE": token_file, "APP_PASSWORD": None}
    return settings


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
