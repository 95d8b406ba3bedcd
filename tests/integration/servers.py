"""The common part of the real mail servers: each is a private instance that a test starts and stops.

`postfix.Postfix` and `exim.Exim` say how theirs is configured. Each listens on two free ports of 127.0.0.1, one for
STARTTLS and one for implicit TLS. It takes any recipient at example.org but `UNKNOWN` and `LATER` from `USER`, and
delivers to one Maildir, which `mails` reads. Nothing ever leaves the machine.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from lifelines import Lifeline
from ports import ReservedPort

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

HOST = "127.0.0.1"
DOMAIN = "example.org"
USER = "user"
PASSWORD = "secret"
UNKNOWN = f"unknown@{DOMAIN}"
LATER = f"later@{DOMAIN}"
MAX_MAIL = 64 << 20

_START_SECONDS = 15.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02
_UMASK = 0o022  # its account reads what we write as root
_SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin"  # only on the PATH of root


@dataclass(frozen=True)
class CertificateFiles:
    """PEM files: an authority, and the certificate (chain) and key of a server for localhost and 127.0.0.1."""

    ca_file: Path
    cert_file: Path
    key_file: Path


class MailServer(ABC):
    """One instance of a mail server, as a process group with its own directory, which is gone after `stop`."""

    name: ClassVar[str]
    _started: ClassVar[str]
    _account: ClassVar[str]
    _recipient: ClassVar[re.Pattern[bytes]]

    def __init__(self, cert_file: Path, key_file: Path, settings: Mapping[str, str] | None = None) -> None:
        """Prepare an instance; `settings` are added to, or replace, those of its configuration's main section."""
        self.port = 0
        self.tls_port = 0
        self._cert_file = cert_file
        self._key_file = key_file
        self._settings = dict(settings or {})
        self._held: list[ReservedPort] = []
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: Lifeline | None = None
        self._mails: defaultdict[str, list[bytes]] = defaultdict(list)
        self._read: set[str] = set()

    def __repr__(self) -> str:
        return f"<{self.name} port={self.port} tls_port={self.tls_port} mails={len(self._read)}>"

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Return why it cannot be started on this machine, None if it can."""

    @property
    @abstractmethod
    def version(self) -> str:
        """The version of the installed program, such as 3.7.11."""

    @abstractmethod
    def _configure(self, directory: Path, cert_file: Path, key_file: Path) -> None:
        """Write the configuration for `port` and `tls_port` into the directory, in which `log` and `mail` exist."""

    @abstractmethod
    def _command(self, directory: Path) -> Sequence[str | Path]:
        """Return the command that runs it in the foreground."""

    def start(self) -> None:
        """Start it on two free ports and return when it listens on both."""
        with ExitStack() as undo:
            undo.callback(self.stop)
            self._held = [ReservedPort(), ReservedPort()]  # Postfix, with SO_REUSEPORT, would not notice another server
            self.port, self.tls_port = (held.port for held in self._held)
            self._directory = self._prepare()
            self._launch()
            undo.pop_all()

    def stop(self) -> None:
        """Stop what `start` started, wait until it is gone, and remove its directory; `mails` and `port` stay."""
        self._terminate()
        while self._held:
            self._held.pop().close()
        if self._directory is not None:
            self._collect()
            shutil.rmtree(self._directory)
            self._directory = None

    def restart(self) -> None:
        """Stop it and start it again on the same ports, with its queue and its log.

        A mail whose delivery that cuts off is delivered again, so it may be there twice.
        """
        self._terminate()
        self._launch()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def mails(self, address: str, count: int, timeout: float = 20) -> list[bytes]:
        """Wait until at least `count` mails for the address were delivered; return all of them, lines ended by LF.

        Raises TimeoutError, with the server's log, where fewer have come after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                # Another process delivers; its only sign is a file in a directory.
                while self._collect() or len(self._mails[address]) < count:  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as error:
            raise TimeoutError(
                f"{len(self._mails[address])} of {count} mails for {address} in {timeout} s\n{self.log()}"
            ) from error
        return list(self._mails[address])

    def settings(self, ca_file: Path, security: str = "tls") -> dict[str, Any]:
        """Return the settings that make a service use this server; `ca_file` has the authority of its certificate."""
        return {
            "EMAIL_HOST": "localhost",
            "EMAIL_PORT": self.tls_port if security == "tls" else self.port,
            "EMAIL_SECURITY": security,
            "EMAIL_CA_FILE": ca_file,
            "EMAIL": USER,
            "APP_PASSWORD": PASSWORD,
            "EMAIL_FROM": f"Codes <codes@{DOMAIN}>",
        }

    def log(self) -> str:
        """Return what it has logged since `start`, and what it has printed."""
        files = sorted((self._running_directory / "log").iterdir())
        return "".join(file.read_text(encoding="utf-8", errors="replace") for file in files)

    @property
    def _running_directory(self) -> Path:
        if self._directory is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._directory

    def _prepare(self) -> Path:
        # pytest's own temporary directories are closed to the accounts that the servers deliver as.
        with ExitStack() as undo:
            directory = Path(tempfile.mkdtemp(prefix=f"{self.name.lower()}-"))
            undo.callback(shutil.rmtree, directory)
            directory.chmod(0o755)
            for part in ("log", "mail", "mail/cur", "mail/new", "mail/tmp"):
                self._own(directory / part)
            certificates = []
            for source in (self._cert_file, self._key_file):
                copy = directory / source.name
                shutil.copyfile(source, copy)
                copy.chmod(0o600)
                shutil.chown(copy, self._account)
                certificates.append(copy)
            before = os.umask(_UMASK)
            try:
                self._configure(directory, *certificates)
            finally:
                os.umask(before)
            undo.pop_all()
        return directory

    def _own(self, directory: Path) -> None:
        """Make a directory that belongs to the account the server works as."""
        directory.mkdir(mode=0o700)
        shutil.chown(directory, self._account)

    def _launch(self) -> None:
        """Run it; raise ConnectionError or TimeoutError, with its log, where it ends or does not come up."""
        directory = self._running_directory
        starts_before = self.log().count(self._started)
        with (directory / "log" / "output").open("ab") as output:
            self._process = subprocess.Popen(
                self._command(directory),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                umask=_UMASK,
            )
        self._lifeline = Lifeline(self._process.pid, directory)
        deadline = time.monotonic() + _START_SECONDS
        while self.log().count(self._started) == starts_before:
            if self._process.poll() is not None:
                raise ConnectionError(f"{self.name} ended with {self._process.returncode}\n{self.log()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} did not start in {_START_SECONDS} s\n{self.log()}")
            time.sleep(_POLL_SECONDS)

    def _terminate(self) -> None:
        """End the process group: first by asking, then by force."""
        process, self._process = self._process, None
        if process is None:
            return
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):  # all have ended
                os.killpg(process.pid, sign)
            deadline = time.monotonic() + _STOP_SECONDS
            while time.monotonic() < deadline:
                if process.poll() is not None and not _members(process.pid):
                    self._let_go()
                    return
                time.sleep(_POLL_SECONDS)
        raise TimeoutError(f"{self.name} outlives SIGKILL: {_members(process.pid)}")

    def _let_go(self) -> None:
        if self._lifeline is not None:
            self._lifeline.close()
            self._lifeline = None

    def _collect(self) -> bool:
        """Read the mails that are new in the Maildir, whose files are whole once they are there; whether any were."""
        if self._directory is None:
            return False
        folder = self._directory / "mail" / "new"
        names = [name for name in os.listdir(folder) if name not in self._read]  # noqa: PTH208 -- at every poll
        for name in sorted(names):
            mail = (folder / name).read_bytes()
            found = self._recipient.match(mail)
            if found is None:
                raise ValueError(f"{self.name} delivered a mail that does not name its recipient: {mail[:500]!r}")
            self._mails[found[1].decode()].append(mail)
            self._read.add(name)
        return bool(names)


def find_program(name: str, *folders: Path) -> Path | None:
    """Look for a program in the folders, on the PATH, and where programs for root are."""
    path = os.pathsep.join([*map(str, folders), os.environ["PATH"], _SYSTEM_FOLDERS])
    found = shutil.which(name, path=path)
    return None if found is None else Path(found)


def printed(*command: str | Path) -> str:
    """Run a command that only prints; return what it printed."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout.strip()


def _members(group: int) -> list[int]:
    """Return the processes of a group that still run: one that has ended may wait long for init to notice."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        state, _, process_group, *_ = text.rpartition(")")[2].split()
        if int(process_group) == group and state not in "ZX":
            members.append(int(stat.parent.name))
    return members
