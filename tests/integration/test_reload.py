"""SIGHUP: what it reloads while mails are in flight, what a wrong value leaves as it was, and when it stops instead."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import shutil
import signal
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health_pb2

import otpmail
from calls import parsed
from otpmail.v1 import mail_pb2, otp_pb2
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay import Certificates, Relay
    from service import LogLine

RELAYED = mail_pb2.Mail.STATE_RELAYED


@asynccontextmanager
async def _serving(relay: Relay, certificates: Certificates, tmp_path: Path, **more: Any) -> AsyncIterator[Service]:
    """Run a service with one connection, whose password is in the file `password`."""
    (tmp_path / "password").write_text("secret\n")
    settings = relay_settings(relay, certificates, tmp_path / "token")
    if settings.get("APP_PASSWORD"):
        settings |= {"APP_PASSWORD": None, "APP_PASSWORD_FILE": tmp_path / "password"}
    async with Service(**settings | {"WORKERS": 1} | more) as service:
        yield service


async def _reload(service: Service) -> LogLine:
    """Send SIGHUP, and return the line about it."""
    count = len(service.logged("reloaded"))
    service.send(signal.SIGHUP)
    return await service.wait_for_log("reloaded", count=count + 1)


async def _send_on_a_new_connection(service: Service, relay: Relay) -> int:
    """Cut all connections, and return the state of a mail that is sent after that."""
    relay.cut_connections()
    answer = await service.mail.SendMail(mail_pb2.SendMailRequest(to=["ada@example.org"], text="Hello"))
    return answer.mail.state


@pytest.mark.relay(security="tls", auth=("EXTERNAL",), wants_certificate=True)
@pytest.mark.parametrize("content", [b"", b"no certificate"])
async def test_the_client_certificate(relay: Relay, certificates: Certificates, tmp_path: Path, content: bytes) -> None:
    """A changed certificate is shown at the next dial. A file that can't be used leaves the one before, in one line."""
    file = tmp_path / "client.pem"
    file.write_bytes(certificates.client_file.read_bytes())
    settings = {"EMAIL": None, "APP_PASSWORD": None, "EMAIL_AUTH": "external", "EMAIL_CERT_FILE": file}
    async with Service(
        **relay_settings(relay, certificates, tmp_path / "token") | settings | {"WORKERS": 1}
    ) as service:
        await service.wait_until_serving()
        certificates.authority.issue_cert("other.test").private_key_and_cert_chain_pem.write_to_path(str(file))
        assert (await _reload(service))["changed"] == ["EMAIL_CERT_FILE"]
        assert await _send_on_a_new_connection(service, relay) == RELAYED
        assert relay.mails[0].username == "other.test"
        file.write_bytes(content)
        assert (await _reload(service))["changed"] == []
        (wrong,) = service.logged("reload-failed")
        assert (wrong["level"], wrong["setting"]) == ("error", "EMAIL_CERT_FILE")
        assert await _send_on_a_new_connection(service, relay) == RELAYED


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff", b"a\nb\n"])
async def test_the_password(relay: Relay, certificates: Certificates, tmp_path: Path, content: bytes | None) -> None:
    """A changed password is used for the next dial. A file that can't be used leaves the one before, in one line."""
    async with _serving(relay, certificates, tmp_path) as service:
        await service.wait_until_serving()
        (tmp_path / "password").write_text("changed\n")
        relay.faults = replace(relay.faults, password="changed")
        line = await _reload(service)
        assert (line["changed"], line["message"]) == (["APP_PASSWORD_FILE"], "reloaded: APP_PASSWORD_FILE")
        assert await _send_on_a_new_connection(service, relay) == RELAYED
        (tmp_path / "password").unlink() if content is None else (tmp_path / "password").write_bytes(content)
        assert (await _reload(service))["changed"] == []
        (wrong,) = service.logged("reload-failed")
        assert (wrong["level"], wrong["setting"]) == ("error", "APP_PASSWORD_FILE")
        assert str(wrong["message"]).endswith("; the value before is kept")
        assert await _send_on_a_new_connection(service, relay) == RELAYED
        assert not any("changed\\n" in line or "secret" in line for line in service.output)


@pytest.mark.relay(password="right")
async def test_a_refused_password_is_mended_at_once(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """A right password after a wrong one is tried at once, although a refused sign-in waits for a minute."""
    async with _serving(relay, certificates, tmp_path) as service:
        await service.wait_for_log("relay-down")
        (tmp_path / "password").write_text("right")
        began = time.monotonic()
        await _reload(service)
        await service.wait_until_serving()
        assert time.monotonic() - began < 30


@pytest.mark.relay(auth=("XOAUTH2",))
@pytest.mark.parametrize("content", [None, b"", b"\xff"])
async def test_the_token(relay: Relay, certificates: Certificates, tmp_path: Path, content: bytes | None) -> None:
    """A token is read again for each dial; SIGHUP checks it, and a file that can't be used leaves the last one."""
    async with _serving(relay, certificates, tmp_path) as service:
        await service.wait_until_serving()
        (tmp_path / "token").write_text("renewed")
        relay.faults = replace(relay.faults, token="renewed")
        await _reload(service)
        assert service.logged("reload-failed") == []
        assert await _send_on_a_new_connection(service, relay) == RELAYED
        (tmp_path / "token").unlink() if content is None else (tmp_path / "token").write_bytes(content)
        assert (await _reload(service))["changed"] == []
        (wrong,) = service.logged("reload-failed")
        assert wrong["setting"] == "EMAIL_TOKEN_FILE"
        assert await _send_on_a_new_connection(service, relay) == RELAYED


@pytest.mark.relay(security="tls")
async def test_the_authorities(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """Other authorities are trusted at the next dial; a file without certificates leaves the ones before."""
    authorities = tmp_path / "ca.pem"
    other = trustme.CA().cert_pem.bytes()
    authorities.write_bytes(certificates.ca_file.read_bytes())
    async with _serving(relay, certificates, tmp_path, EMAIL_CA_FILE=authorities) as service:
        await service.wait_until_serving()
        authorities.write_text("no certificate")
        assert (await _reload(service))["changed"] == []
        (wrong,) = service.logged("reload-failed")
        assert wrong["setting"] == "EMAIL_CA_FILE"
        assert await _send_on_a_new_connection(service, relay) == RELAYED
        authorities.write_bytes(other)
        assert (await _reload(service))["changed"] == ["EMAIL_CA_FILE"]
        relay.cut_connections()
        await service.wait_for_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        authorities.write_bytes(other + certificates.ca_file.read_bytes())
        await _reload(service)
        await service.wait_until_serving()
        assert any(
            "its certificate is signed by an authority that is not trusted here" in line for line in service.output
        )


def _templates(folder: Path) -> Path:
    """Templates of one language."""
    templates = folder / "templates"
    (templates / "en").mkdir(parents=True)
    (templates / "en" / "subject.txt").write_text("A code\n")
    (templates / "en" / "body.txt").write_text("$code\n")
    return templates


async def test_templates(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """Changed templates are used for the next code; one that can't be read leaves all of them as they were."""
    templates = _templates(tmp_path)
    settings = {"OTP_TEMPLATES_DIR": templates, "OTP_RESEND_SECONDS": 0}

    async def subject() -> str:
        await service.otp.SendCode(otp_pb2.SendCodeRequest(email="ada@example.org"))
        return str(parsed(relay.mails[-1].content)["Subject"])

    async with _serving(relay, certificates, tmp_path, **settings) as service:
        await service.wait_until_serving()
        assert await subject() != "Changed"
        (templates / "en" / "subject.txt").write_text("Changed\n")
        assert (await _reload(service))["changed"] == ["OTP_TEMPLATES_DIR"]
        assert await subject() == "Changed"
        (templates / "en" / "subject.txt").write_text("Wrong $\n")
        assert (await _reload(service))["changed"] == []
        (wrong,) = service.logged("reload-failed")
        assert str(wrong["message"]).startswith(
            "reload: OTP_TEMPLATES_DIR: en: subject.txt:1: has a $ that begins no name"
        )
        assert await subject() == "Changed"
        shutil.rmtree(templates)
        await _reload(service)
        assert len(service.logged("reload-failed")) == 2
        assert await subject() == "Changed"


@pytest.mark.service(OTP_LOCALE=None)
async def test_settings_in_the_file(service: Service) -> None:
    """`.env` is read again: the level of the log is taken; a wrong value, or one that needs a restart, is named."""
    env = service.directory / ".env"
    env.write_text("LOG_LEVEL=debug\nWORKERS=7\n")
    line = await _reload(service)
    assert (line["changed"], line["need_restart"]) == (["LOG_LEVEL"], ["WORKERS"])
    assert line["message"] == "reloaded: LOG_LEVEL; a restart is needed for WORKERS"
    await service.mail.SendMail(mail_pb2.SendMailRequest(to=["ada@example.org"], text="Hello"))
    await service.wait_for_log("mail-accepted")
    env.write_text("LOG_LEVEL=loud\nOTP_LOCALE=de\nWORKERS=0\n")
    line = await _reload(service)
    assert line["changed"] == ["OTP_LOCALE"]
    assert [wrong["setting"] for wrong in service.logged("reload-failed")] == ["LOG_LEVEL", "WORKERS"]
    await service.mail.SendMail(mail_pb2.SendMailRequest(to=["ada@example.org"], text="Hello"))
    await service.wait_for_log("mail-accepted", count=2)
    env.write_text("LOG_LEVEL=warning\nLOG LEVEL\n")
    assert (await _reload(service))["changed"] == []
    assert service.logged("reload-failed")[-1]["setting"] == ".env"
    env.write_text("LOG_LEVEL=error\n")
    assert (await _reload(service))["changed"] == ["LOG_LEVEL", "OTP_LOCALE"]


@pytest.mark.relay(auth=("XOAUTH2",), security="tls")
async def test_pipes_in_place_of_files(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """A pipe that nobody writes to is no file, and is not waited for by SIGHUP, a dial or a stop."""
    authorities = tmp_path / "ca.pem"
    authorities.write_bytes(certificates.ca_file.read_bytes())
    async with _serving(relay, certificates, tmp_path, EMAIL_CA_FILE=authorities) as service:
        await service.wait_until_serving()
        for file in (authorities, tmp_path / "token"):
            file.unlink()
            os.mkfifo(file)
        await _reload(service)
        wrong = {line["setting"] for line in service.logged("reload-failed")}
        assert wrong == {"EMAIL_CA_FILE", "EMAIL_TOKEN_FILE"}
        assert await _send_on_a_new_connection(service, relay) == RELAYED
        assert await service.stop() == 0


async def test_a_template_that_is_never_read(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """A file that blocks its reader, as on a file system that does not answer, delays no call and no stop."""
    templates = _templates(tmp_path)
    async with _serving(relay, certificates, tmp_path, OTP_TEMPLATES_DIR=templates) as service:
        await service.wait_until_serving()
        is_waiting = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGIO, is_waiting.set)
        try:
            with (templates / "en" / "subject.txt").open("r+b") as file:
                _hold(file)
                service.send(signal.SIGHUP)
                await is_waiting.wait()
                await service.otp.SendCode(otp_pb2.SendCodeRequest(email="ada@example.org"))
                assert await service.stop() == 0
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGIO)


def _hold(file: BinaryIO) -> None:
    """Block each process that opens the file, until it is closed here. SIGIO comes when one waits."""
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        pytest.skip(f"this file system has no leases: {error.strerror}")


async def test_a_misspelt_purpose(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """The start warns of a folder whose name is nearly that of a purpose, and serves. A reload warns of new ones."""
    templates = _templates(tmp_path)
    shutil.copytree(templates / "en", templates / "en" / "lgoin")
    async with _serving(relay, certificates, tmp_path, OTP_TEMPLATES_DIR=templates) as service:
        line = await service.wait_for_log("template-misspelt", setting="OTP_TEMPLATES_DIR")
        assert line["level"] == "warning"
        assert "OTP_TEMPLATES_DIR: en/lgoin: did you mean login?" in str(line["message"])
        await service.wait_until_serving()
        shutil.copytree(templates / "en" / "lgoin", templates / "en" / "rest")
        service.send(signal.SIGHUP)
        said = "OTP_TEMPLATES_DIR: en/rest: did you mean reset? Only calls with the purpose rest have its mail"
        await service.wait_for_log("template-misspelt", message=said)
        assert len(service.logged("template-misspelt")) == 2


async def test_a_pipe_in_place_of_a_template(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """SIGHUP does not wait for a pipe: it says that this is no file, and the templates stay."""
    templates = _templates(tmp_path)
    async with _serving(relay, certificates, tmp_path, OTP_TEMPLATES_DIR=templates) as service:
        await service.wait_until_serving()
        (templates / "en" / "subject.txt").unlink()
        os.mkfifo(templates / "en" / "subject.txt")
        assert (await _reload(service))["changed"] == []
        (wrong,) = service.logged("reload-failed")
        assert "OTP_TEMPLATES_DIR: en: subject.txt: is not a file" in str(wrong["message"])


@pytest.mark.relay(delay=0.005)
async def test_nothing_is_lost(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """Reloads while mails are queued and in flight lose none and stop nothing; many that come together are few."""
    people = [f"p{number}@example.org" for number in range(300)]
    wait = mail_pb2.WAIT_FOR_QUEUE
    async with _serving(relay, certificates, tmp_path) as service:
        await service.wait_until_serving()
        for number, person in enumerate(people):
            request = mail_pb2.SendMailRequest(to=[person], text="Hello", wait_for=wait)
            await service.mail.SendMail(request)
            if number % 20 == 0:
                (tmp_path / "password").write_text("secret" if number % 40 else "secret\n")
                service.send(signal.SIGHUP)
        await _reload(service)
        assert await service.stop() == 0
        assert service.log[-1]["sent"] == len(people)
    assert sorted(mail.recipients[0] for mail in relay.mails) == sorted(people)


@pytest.mark.relay(chunking=False, silent_at="DATA", times=1)
@pytest.mark.service(WORKERS=1)
async def test_during_a_stop(service: Service, relay: Relay) -> None:
    """SIGHUP ends no stop that has begun: the mails go on."""
    call = asyncio.ensure_future(service.mail.SendMail(mail_pb2.SendMailRequest(to=["ada@example.org"], text="t")))
    await relay.wait_for_command("DATA")
    service.send(signal.SIGTERM)
    await service.wait_for_log("stopping")
    await _reload(service)
    relay.cut_connections()
    assert (await call).mail.state == RELAYED
    assert await service.wait_exited() == 0


async def test_dev_stops() -> None:
    """`otpmail dev` stops at SIGHUP as at SIGTERM: its terminal has gone."""
    settings: dict[str, Any] = {"EMAIL": None, "APP_PASSWORD": None, "EMAIL_FROM": None}
    async with Service(command="dev", **settings) as service:
        await service.wait_until_serving()
        assert await service.stop(signal.SIGHUP) == 0
        assert service.log[-1]["event"] == "stopped"


@asynccontextmanager
async def _at_a_terminal(directory: Path, *command: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Run a command at a new terminal until it listens on the socket `s`; also yield the terminal's other end."""
    master, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory,
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": str(Path(otpmail.__file__).parents[1]),
            "HOST": f"unix:{directory}/s",
            "EMAIL_HOST": "127.0.0.1",
            "EMAIL_PORT": "1",
            "EMAIL_FROM": "codes@example.org",
        },
        stdin=terminal,
        stdout=terminal,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(terminal)
    try:
        async with asyncio.timeout(20), grpc.aio.insecure_channel(f"unix:{directory}/s") as channel:
            await channel.channel_ready()
            yield process, master
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_terminal(tmp_path: Path) -> None:
    """A service with a terminal reloads at a SIGHUP that somebody sends, and stops at one after the terminal went.

    The shell may send one beside that of the kernel, and a second one ends nothing.
    """
    async with _at_a_terminal(tmp_path, sys.executable, "-m", "otpmail", "serve") as (process, master):
        assert process.stderr is not None
        process.send_signal(signal.SIGHUP)
        async for line in process.stderr:
            if b"reloaded: nothing has changed" in line:
                break
        os.close(master)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        assert (await process.stderr.read()).endswith(b" INFO stopped\n")
        assert await process.wait() == 0


@pytest.mark.skipif(not shutil.which("setsid"), reason="needs setsid, to give a process its own terminal")
@pytest.mark.parametrize("command", ["serve", "dev"])
async def test_a_terminal_that_is_closed(tmp_path: Path, command: str) -> None:
    """Closing the window stops a service that runs in it, and nothing that it still prints there fails."""
    program = ("setsid", "--ctty", sys.executable, "-m", "otpmail", command)
    async with _at_a_terminal(tmp_path, *program) as (process, master):
        assert process.stderr is not None
        os.close(master)
        assert (await process.stderr.read()).endswith(b" INFO stopped\n")
        assert await process.wait() == 0
