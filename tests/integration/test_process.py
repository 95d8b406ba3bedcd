"""The process in its container: signals that come early or late, a full disk, secrets that others own, `.env`."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calls import send_to
from otpmail.v1 import mail_pb2
from service import FAILS_ON_SIGNAL, SOURCES, Service, ServiceExitedError, relay_settings
from users import NOBODY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from relay import Certificates, Relay

_RESOLVER = "127.0.0.53"
_LOOKS_UP = {"EMAIL_FROM": "codes@example.org", "EMAIL_HOST": "127.0.0.1"}


@asynccontextmanager
async def _started(
    *command: str, environment: Mapping[str, str], here: Path, user: int | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a command with these variables, and leave none of it."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=here,
        env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": SOURCES, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        user=user,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


# Signals.

_BUSY = """
import asyncio, signal
from otpmail.store.memory import MemoryChallengeStore

def spin():
    print('{"event": "busy"}', flush=True)
    while True:
        pass

async def sweep(*_):
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, spin)
    await asyncio.Event().wait()

MemoryChallengeStore.sweep_forever = sweep
"""


async def test_a_loop_that_is_stuck(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """The second signal ends a process whose loop never turns again."""
    (tmp_path / "sitecustomize.py").write_text(_BUSY)
    settings = relay_settings(relay, certificates, tmp_path / "token")
    async with Service(**settings, PYTHONPATH=f"{tmp_path}:{SOURCES}") as service:
        await service.wait_until_serving()
        service.send(signal.SIGUSR1)
        await service.wait_for_log("busy")
        service.send(signal.SIGTERM)
        # Two of the same kind that come together are one for the kernel.
        assert await service.stop(signal.SIGINT, timeout=20) in {130, 143}
        assert service.log[-1]["event"] == "stopped-at-once"


def _child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


_SLOW_START = """
import sys, time

def hold(event, arguments):
    if event == "import" and arguments[0] == "typer":
        print("importing", flush=True)
        time.sleep(60)

sys.addaudithook(hold)
"""


@pytest.mark.skipif(not shutil.which("unshare") or os.geteuid() != 0, reason="needs a namespace for process 1")
async def test_process_1_before_it_serves(tmp_path: Path) -> None:
    """Process 1 of a container ends at SIGTERM from its start on: the kernel drops signals without a handler there."""
    (tmp_path / "sitecustomize.py").write_text(_SLOW_START)
    command = ("unshare", "--pid", "--fork", "--kill-child", sys.executable, "-m", "otpmail", "serve")
    environment = {"PYTHONPATH": f"{tmp_path}:{SOURCES}"}
    async with _started(*command, environment=environment, here=tmp_path) as outer, asyncio.timeout(20):
        assert outer.stdout is not None
        if await outer.stdout.readline() != b"importing\n":
            pytest.skip("no namespace for process 1 can be made here")
        os.kill(_child_of(outer.pid), signal.SIGTERM)
        assert await outer.wait() == 143


async def test_a_hangup_before_it_serves(tmp_path: Path) -> None:
    """SIGHUP does not end a service that still imports its parts, for which SIGTERM needs no handler."""
    (tmp_path / "sitecustomize.py").write_text(_SLOW_START)
    command = (sys.executable, "-m", "otpmail", "serve")
    environment = {"PYTHONPATH": f"{tmp_path}:{SOURCES}"}
    async with _started(*command, environment=environment, here=tmp_path) as process, asyncio.timeout(20):
        assert process.stdout is not None
        assert await process.stdout.readline() == b"importing\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)  # of two signals that wait, the kernel delivers the lower number first
        assert await process.wait() == -signal.SIGTERM


_HANGUP_AT_THE_END = """
import functools, os, signal

# No function refers to the names of this module, so that they go with it, and not in a collection that leaves them out.
last = type("Last", (), {"__del__": functools.partial(os.kill, os.getpid(), signal.SIGHUP)})()
"""


async def test_a_hangup_after_the_last_line(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """SIGHUP does not change the exit code of a service that has stopped, and whose interpreter is at its end."""
    (tmp_path / "sitecustomize.py").write_text(_HANGUP_AT_THE_END)
    settings = relay_settings(relay, certificates, tmp_path / "token")
    async with Service(**settings, PYTHONPATH=f"{tmp_path}:{SOURCES}") as service:
        await service.wait_until_serving()
        assert await service.stop() == 0


@pytest.mark.relay(delay=0.001)
async def test_many_hangups(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """Hundreds of SIGHUPs under load lose no call and no mail, and become few reloads."""
    people = [f"p{number}@example.org" for number in range(300)]
    async with Service(**relay_settings(relay, certificates, tmp_path / "token")) as service:
        await service.wait_until_serving()
        calls = asyncio.create_task(send_to(service, people))
        sent = 0
        while not calls.done():
            service.send(signal.SIGHUP)
            sent += 1
            await asyncio.sleep(0)
        answers = await calls
        assert {mail.state for mail in answers.values()} == {mail_pb2.Mail.STATE_RELAYED}
        await service.wait_for_log("reloaded")
        assert await service.stop() == 0
        assert len(service.logged("reloaded")) < sent
    assert len(relay.mails) == len(people)


@pytest.mark.parametrize("_", range(4))
async def test_a_reload_that_crosses_a_stop(relay: Relay, certificates: Certificates, tmp_path: Path, _: int) -> None:
    """A process that is stopped in the middle of a reload ends with 0: no thread outlives what it needs."""
    settings = relay_settings(relay, certificates, tmp_path / "token")
    async with Service(**settings) as service:
        for _number in range(200):
            service.send(signal.SIGHUP)
            await asyncio.sleep(0.0005)
        assert await service.stop() == 0


# A resolver that does not answer.


@pytest.fixture
def silent_resolver(tmp_path: Path) -> Iterator[tuple[socket.socket, tuple[str, ...]]]:
    """Return a name server that never answers, and the words that run otpmail with it alone."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs another /etc/resolv.conf in a namespace")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        try:
            server.bind((_RESOLVER, 53))
        except OSError as error:
            pytest.skip(f"needs port 53 of {_RESOLVER}: {error}")
        server.setblocking(False)  # noqa: FBT003  the library's signature
        (tmp_path / "resolv.conf").write_text(f"nameserver {_RESOLVER}\noptions timeout:30\n")
        command = f'mount --bind {tmp_path}/resolv.conf /etc/resolv.conf || echo cannot; exec "$@"'
        yield server, ("unshare", "--mount", "sh", "-c", command, "sh", sys.executable, "-m", "otpmail")


@pytest.mark.parametrize(
    ("name", "command", "code"),
    [("EMAIL_HOST", "serve", 0), ("HTTP_HOST", "serve", 0), ("HOST", "serve", 143), ("EMAIL_HOST", "check", 130)],
)
async def test_a_resolver_that_is_silent(
    silent_resolver: tuple[socket.socket, tuple[str, ...]],
    tmp_path: Path,
    name: str,
    command: str,
    code: int,
) -> None:
    """A signal ends a process that waits for a name to be looked up, as it starts or dials."""
    server, otpmail = silent_resolver
    environment = {**_LOOKS_UP, "HOST": f"unix:{tmp_path}/s", "HTTP_PORT": "0"} | {name: "never.example"}
    async with _started(*otpmail, command, environment=environment, here=tmp_path) as process, asyncio.timeout(20):
        await asyncio.get_running_loop().sock_recv(server, 512)
        process.send_signal(signal.SIGINT if command == "check" else signal.SIGTERM)
        assert await process.wait() == code


async def test_a_part_that_fails_while_a_resolver_is_silent(
    silent_resolver: tuple[socket.socket, tuple[str, ...]], tmp_path: Path
) -> None:
    """A service whose part fails ends with 1 and the error in its log, though a relay's name is looked up."""
    server, otpmail = silent_resolver
    (tmp_path / "sitecustomize.py").write_text(FAILS_ON_SIGNAL)
    environment = {**_LOOKS_UP, "HOST": f"unix:{tmp_path}/s", "EMAIL_HOST": "never.example"}
    environment["PYTHONPATH"] = f"{tmp_path}:{SOURCES}"
    async with _started(*otpmail, "serve", environment=environment, here=tmp_path) as process, asyncio.timeout(20):
        await asyncio.get_running_loop().sock_recv(server, 512)
        process.send_signal(signal.SIGUSR1)
        _, log = await process.communicate()
        assert process.returncode == 1
        assert b"RuntimeError: boom" in log


# Output.


@pytest.fixture
def full_disk() -> Iterator[int]:
    """Open a file on a disk that is full."""
    fd = os.open("/dev/full", os.O_WRONLY)
    yield fd
    os.close(fd)


async def test_a_full_disk(full_disk: int, relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """A log on a full disk (ENOSPC) costs its lines and nothing else."""
    settings = relay_settings(relay, certificates, tmp_path / "token") | {"HOST": f"unix:{tmp_path}/s"}
    service = Service.writing_to(full_disk, **settings)
    try:
        await service.spawn()
        await service.wait_until_serving()
        await send_to(service, ["ada@example.org"])
        assert await service.stop() == 0
    finally:
        await service.close()


# Settings.


def _nobody_can_run(tmp_path: Path) -> bool:
    """Whether this process may become another user, who may read the sources and enter the directory."""
    if os.geteuid() != 0:
        return False
    pid = os.fork()
    if pid == 0:
        try:
            os.setuid(NOBODY)
            readable = os.access(SOURCES, os.R_OK) and os.access(sys.executable, os.X_OK)
            os._exit(0 if readable and os.access(tmp_path, os.X_OK) else 1)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize(
    ("mode", "of_file", "line"),
    [
        (0o755, 0o600, "OTP_KEYS: {0}/OTP_KEYS can't be read: Permission denied"),
        (0o744, 0o644, "OTP_KEYS: {0}/OTP_KEYS can't be read: Permission denied"),
        (0o700, 0o644, "SECRETS_DIR: '{0}' can't be read: Permission denied"),
    ],
)
async def test_secrets_that_another_user_owns(tmp_path: Path, mode: int, of_file: int, line: str) -> None:
    """A directory that is closed, or a file in it, is exit code 2 and one line with the setting and the path."""
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    if not _nobody_can_run(tmp_path):
        pytest.skip("needs root, and sources that another user can read")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "OTP_KEYS").write_text("k1:secret")
    (secrets / "OTP_KEYS").chmod(of_file)
    secrets.chmod(mode)
    environment = {"SECRETS_DIR": str(secrets), "EMAIL_FROM": "codes@example.org"}
    command = (sys.executable, "-m", "otpmail", "serve")
    async with _started(*command, environment=environment, here=tmp_path, user=NOBODY) as process:
        _, errors = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, errors.decode()) == (2, line.format(secrets) + "\n")


async def test_what_is_wrong_in_the_file(tmp_path: Path) -> None:
    """Each fault of `.env` and the environment is a line without a secret; all come at once, with exit code 2."""
    (tmp_path / ".env").write_text(
        "APP_PASSWORD=hunter2 #hunter3\nOTP_KEYS=k1:${hunter2}\nDRAIN_SECONDS=5 minutes\nEMAIL_RELAYS='smtp://a'\n"
    )
    environment = {"EMAIL_FROM": "codes@example.org", "HTTP_HOST": "'127.0.0.1'", "EMAIL_HELO": "me\xa0"}
    async with _started(sys.executable, "-m", "otpmail", "serve", environment=environment, here=tmp_path) as process:
        output, errors = await asyncio.wait_for(process.communicate(), 20)
    lines = errors.decode().splitlines()
    assert (process.returncode, output) == (2, b"")
    names = {"APP_PASSWORD", "OTP_KEYS", "DRAIN_SECONDS", "HTTP_HOST", "EMAIL_HELO"}
    assert {line.partition(":")[0] for line in lines} == names
    assert len(lines) == len(names)
    assert "hunter" not in errors.decode()


async def test_single_quotes_in_the_file(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """A password in single quotes is what stands between them, and signs in; a time may have units."""
    relay.faults = type(relay.faults)(password="a ${b} #c$d")
    settings = relay_settings(relay, certificates, tmp_path / "token") | {"APP_PASSWORD": None}
    service = Service(**settings)
    with pytest.raises(ServiceExitedError):
        await service.start()  # makes the directory, and ends for want of a password
    (service.directory / ".env").write_text("APP_PASSWORD='a ${b} #c$d' # why\nEMAIL_TIMEOUT=1m30s\n")
    async with service:
        await service.wait_until_serving()
