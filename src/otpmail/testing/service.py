"""The service of the tests, from the tests' side: starts its process, and asks it for what a test wants."""

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Condition, Lock, Thread
from types import TracebackType
from typing import Any, Self

from otpmail.dev.caught import CaughtMail
from otpmail.extras import install_command
from otpmail.testing.given import Setting, as_text
from otpmail.testing.inbox import Inbox, Mailroom, mailbox_of, number

_START_SECONDS = 30.0  # on a busy machine
_ANSWER_SECONDS = 30.0
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")
_MOST_DAYS = 10_000
_DAY_SECONDS = 86_400.0
_REFUSAL = re.compile(r"[45][0-9]{2}([ ][ -~]*)?")
SERVICE_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "PYDANTIC_DISABLE_PLUGINS": "__all__",  # to look for some takes 15 ms of each start
}
_SOURCES = str(Path(__file__).parents[2])


class ServiceFailedError(RuntimeError):
    """The process of the service has ended, or does not answer. The text has its last lines."""


class Service:
    """A service in a process of its own, whose mails are caught. `settings` are those of `otpmail serve` by name.

    `address` is where it listens. Each `namespace()` has codes, limits, failures and an inbox of its own. The clock is
    that of all namespaces. Threads may share it.
    """

    def __init__(self, settings: Mapping[str, Setting] | None = None) -> None:
        self._settings = as_text(settings)
        self.address = ""
        self.mailroom = Mailroom()
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._readers: list[Thread] = []
        self._answers: dict[int, Any] = {}
        self._answered = Condition()
        self._asking = Lock()
        self._asked = 0
        self._closed: list[str] = []
        self._lines: list[str] = []
        self._has_ended = False
        self.clock = Clock(self)

    def __repr__(self) -> str:
        return f"<Service {self.address or 'not started'}>"

    def start(self) -> Self:
        """Start the process, and return once it listens. Raises ServiceFailedError."""
        self._directory = tempfile.TemporaryDirectory(prefix="otpmail-testing-")
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        path = os.pathsep.join(filter(None, (_SOURCES, os.environ.get("PYTHONPATH", ""))))
        environment = kept | SERVICE_ENVIRONMENT | {"SECRETS_DIR": self._directory.name, "PYTHONPATH": path}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "otpmail.testing.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._directory.name,  # where there is no .env
            env=environment,
            start_new_session=True,  # Ctrl-C is for the tests, which then end it
        )
        self._readers = [Thread(target=read, daemon=True) for read in (self._read_messages, self._read_log)]
        for reader in self._readers:
            reader.start()
        self._write({"settings": self._settings})
        self.address = self._wait(0, _START_SECONDS)
        return self

    def close(self) -> None:
        """End the process."""
        process = self._process
        if process is None:
            return
        self._process = None
        process.kill()  # it holds nothing that anyone needs
        process.wait()
        if process.stdin is not None:
            with suppress(BrokenPipeError):  # of a command that it did not read any more
                process.stdin.close()
        for reader in self._readers:
            reader.join()
        for output in (process.stdout, process.stderr):
            if output is not None:
                output.close()
        if self._directory is not None:
            self._directory.cleanup()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def namespace(self) -> "Namespace":
        """Return a new namespace: a caller that has nothing, by a token of its own."""
        closed, self._closed = self._closed, []
        name, token = self.ask("namespace", closed=closed)
        return Namespace(self, name, token)

    def forget(self, namespace: str) -> None:
        """Forget the mails of a namespace, which is closed: the service takes its token for a while at most."""
        self._closed.append(namespace)
        self.mailroom.drop(namespace)

    def ask(self, what: str, **more: object) -> Any:
        """Ask the process to do something, and return its answer. Raises ServiceFailedError."""
        with self._asking:
            self._asked += 1
            number = self._asked
            self._write({"number": number, "do": what, **more})
        return self._wait(number, _ANSWER_SECONDS)

    def catch_up(self) -> None:
        """Wait until all mails that were caught before this call are in the mailroom. Raises ServiceFailedError."""
        self.ask("answer")  # which comes behind them

    def _write(self, message: Mapping[str, object]) -> None:
        process = self._process
        if process is None or process.stdin is None:
            raise ServiceFailedError("the service of the tests is not running")
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            raise self._failure("has ended") from None

    def _wait(self, number: int, seconds: float) -> Any:
        with self._answered:
            if not self._answered.wait_for(lambda: number in self._answers or self._has_ended, seconds):
                raise self._failure(f"did not answer in {seconds:g} s")
            if number not in self._answers:
                raise self._failure("has ended")
            return self._answers.pop(number)

    def _failure(self, what: str) -> ServiceFailedError:
        for reader in self._readers if self._has_ended else ():
            reader.join(1)
        lines = [f"the service of the tests {what}", *self._lines[-20:]]
        if lines[-1].startswith("ModuleNotFoundError: "):
            lines.append(f"{install_command('testing')} installs what it needs")
        return ServiceFailedError("\n".join(lines))

    def _read_messages(self) -> None:
        """Read the messages of the process: caught mails, refused recipients, and answers."""
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if mail := message.get("mail"):
                self.mailroom.add(mail["namespace"], _caught(mail))
            elif refused := message.get("refused"):
                self.mailroom.note_refusal(**refused)
            else:
                with self._answered:
                    self._answers[message["number"]] = message["answer"]
                    self._answered.notify_all()
        with self._answered:
            self._has_ended = True
            self._answered.notify_all()
        self.mailroom.close("the service of the tests has ended")

    def _read_log(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.append(line.decode(errors="replace").rstrip())
            del self._lines[:-200]


def _caught(message: dict[str, Any]) -> CaughtMail:
    content = base64.b64decode(message["content"])
    refused = tuple((address, reply) for address, reply in message["refused"])
    return CaughtMail(message["sender"], tuple(message["recipients"]), content, refused, message["code"])


class Clock:
    """The clock of a service. It is that of the machine, and tests move it forward, for all namespaces at once."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._passed = 0.0
        self._moving = Lock()

    def __repr__(self) -> str:
        return f"<Clock of {self._service!r}>"

    def advance(self, seconds: float = 0.0, *, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0) -> None:
        """Let time pass: codes expire, waits and limits end, and deferred mails are sent again.

        Raises ValueError for a time that is negative, and where more than 10000 days would pass in all.
        """
        given = {"seconds": seconds, "minutes": minutes, "hours": hours, "days": days}
        seconds, minutes, hours, days = (number(value, name) for name, value in given.items())
        passed = seconds + 60 * (minutes + 60 * (hours + 24 * days))
        if not passed >= 0:
            raise ValueError(f"time passes forward only: {passed} s")
        with self._moving:
            if self._passed + passed > _MOST_DAYS * _DAY_SECONDS:
                gone = f", and {self._passed:g} s have passed" if self._passed else ""
                raise ValueError(f"at most {_MOST_DAYS} days may pass in all: {passed:g} s are too many{gone}")
            self._passed += passed
            self._service.ask("advance", seconds=passed)


class Namespace:
    """The part of a service that belongs to one test: its inbox, its codes, its limits."""

    def __init__(self, service: Service, name: str, token: str) -> None:
        self._service = service
        self._name = name
        self._inboxes: dict[str, Inbox] = {}
        self.token = token
        self.clock = service.clock

    def __repr__(self) -> str:
        return f"<Namespace {self._name} of {self._service!r}>"

    @property
    def address(self) -> str:
        """Where the service listens."""
        return self._service.address

    @property
    def environment(self) -> dict[str, str]:
        """The environment that a program needs to call the service in this namespace."""
        return {"OTPMAIL_SERVER": self.address, "OTPMAIL_TOKEN": self.token}

    @property
    def mails(self) -> list[CaughtMail]:
        """All mails of the test until now, the oldest first."""
        self._service.catch_up()
        return self._service.mailroom.of(self._name)

    def inbox(self, address: str) -> Inbox:
        """Return the inbox of a mailbox address, always the same one: it knows which codes the test has had."""
        name = mailbox_of(address)
        if name not in self._inboxes:
            self._inboxes[name] = Inbox(self._service.mailroom, self._name, address, self._service.catch_up)
        return self._inboxes[name]

    @contextmanager
    def fail(
        self, reply: int | str, *addresses: str, times: int | None = None, suppress: bool = False
    ) -> Iterator[None]:
        """Let the relay refuse recipients: `fail(550)` each of them, `fail(451, "ada@example.org", times=1)` one, once.

        `reply` is a code or a whole reply. It holds for the mails of this namespace, which are those sent with its
        token, and ends with the block. In a block within it, the inner one comes first. With `suppress` the service
        suppresses the addresses as it does for a real relay, also after the block. Raises ValueError for a reply that
        refuses nothing, and for what is no mailbox address.
        """
        if not _REFUSAL.fullmatch(str(reply)):
            raise ValueError(f"no reply of a relay that refuses: {reply!r}; take 400 to 599, or such as '550 5.1.1 no'")
        for address in addresses:
            mailbox_of(address)
        if times is not None and (not isinstance(times, int) or times < 1):
            raise ValueError(f"times must be a whole number, 1 or more: {times!r}")
        failure = self._service.ask(
            "fail", namespace=self._name, reply=reply, addresses=addresses, times=times, suppress=suppress
        )
        try:
            yield
        finally:
            self._service.ask("heal", namespace=self._name, failure=failure)

    def close(self) -> None:
        """Forget the mails, and let the token end."""
        self._service.forget(self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
