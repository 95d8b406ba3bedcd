"""Standard output and error that can't be written, or that nobody reads: no command shows a traceback or waits."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from commands import ended, start
from integration.callers import table, write
from otpmail.v1 import mail_pb2, mail_pb2_grpc
from service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SETTINGS = {"EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": "1", "EMAIL_FROM": "codes@example.org"}
_GONE = "standard output: can't be written: Broken pipe\n"
_FULL = "standard output: can't be written: No space left on device\n"
_SEND = ("mail", "send", "--to", "ada@example.org", "--text", "Hi")


@pytest.fixture(params=["gone", "full"])
def broken(request: pytest.FixtureRequest) -> Iterator[tuple[int, str, int]]:
    """Open an output that can't be written; with the line about it, and the exit code of what was a success."""
    if request.param == "gone":
        reading, writing = os.pipe()
        os.close(reading)
        line, code = _GONE, 0
    else:
        writing, line, code = os.open("/dev/full", os.O_WRONLY), _FULL, 4
    yield writing, line, code
    os.close(writing)


@pytest.mark.parametrize("command", [("--version",), ("--help",), ("check", "--no-dial"), ("serve", "--help")])
async def test_success_without_an_output(
    broken: tuple[int, str, int], command: tuple[str, ...], tmp_path: Path
) -> None:
    """A command that did its work ends with 0 if the reader has gone, else with 4, after one line on standard error."""
    output, line, code = broken
    ran = await ended(await start(*command, here=tmp_path, stdout=output, environment=_SETTINGS))
    assert (ran.code, ran.err) == (code, line)


@pytest.mark.parametrize("form", [(), ("--json",)])
async def test_a_call_without_an_output(broken: tuple[int, str, int], form: tuple[str, ...]) -> None:
    """The service's answer decides the exit code: it serves, the mail is sent, the code is wrong."""
    output, line, code = broken
    async with Service(command="dev", EMAIL=None, APP_PASSWORD=None, EMAIL_FROM=None) as dev:
        await dev.wait_until_serving()
        validate = ("code", "validate", "ada@example.org", "123456")
        for command, expected in (("health",), code), (_SEND, code), (validate, 1):
            ran = await ended(await start(*command, *form, server=dev.address, stdout=output))
            assert (ran.code, ran.err) == (expected, line), command


class _EndlessMails(mail_pb2_grpc.MailServiceServicer):
    """Has a further page of mails behind each page."""

    async def ListMails(self, request: Any, context: Any) -> mail_pb2.ListMailsResponse:  # noqa: ARG002, N802
        """Return one."""
        return mail_pb2.ListMailsResponse(mails=[mail_pb2.Mail(id="m")] * 1000, next_page_token="more")


@pytest.mark.parametrize("form", [(), ("--json",)])
async def test_a_long_list_without_an_output(broken: tuple[int, str, int], form: tuple[str, ...]) -> None:
    """`mail list` asks for no further page once nobody reads it, as behind `| head`."""
    output, line, code = broken
    server = grpc.aio.server()
    mail_pb2_grpc.add_MailServiceServicer_to_server(_EndlessMails(), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    listing = ("mail", "list", "--limit", "100000000")
    ran = await ended(await start(*listing, *form, server=f"127.0.0.1:{port}", stdout=output))
    await server.stop(0)
    assert (ran.code, ran.err) == (code, line)


async def test_an_error_without_an_output(broken: tuple[int, str, int]) -> None:
    """A command that fails before it prints anything has its usual error and exit code."""
    output, _, _ = broken
    ran = await ended(await start("health", server="127.0.0.1:1", stdout=output))
    assert ran.code == 3
    assert ran.err.startswith("no service answers on 127.0.0.1:1")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "code"),
    [(("serve",), 2), (("dev",), 2), (("check",), 2), (("health",), 3), (("serve", "-x"), 2)],
)
async def test_errors_that_nobody_reads(
    full_pipe: tuple[int, int], command: tuple[str, ...], code: int, tmp_path: Path
) -> None:
    """A command ends with its exit code, though standard error is a full pipe that nobody reads."""
    environment = {"WORKERS": "0", "HOST": f"unix:{tmp_path}/s"}
    process = await start(*command, here=tmp_path, stderr=full_pipe[1], environment=environment)
    async with asyncio.timeout(20):
        assert (await ended(process)).code == code


async def test_errors_on_a_full_disk(tmp_path: Path) -> None:
    """A command ends with its exit code, though standard error is on a full disk."""
    full = os.open("/dev/full", os.O_WRONLY)
    process = await start("serve", here=tmp_path, stderr=full, environment={"WORKERS": "0"})
    os.close(full)
    assert (await ended(process)).code == 2


@pytest.mark.parametrize("command", ["add", "rotate"])
async def test_a_token_that_nobody_can_read(broken: tuple[int, str, int], command: str, tmp_path: Path) -> None:
    """`caller add` and `rotate` change no file whose token their output does not take, and say so."""
    output, line, _ = broken
    if command == "rotate":
        write(tmp_path / "callers.toml", table("shop"))
    before = _files_of(tmp_path)
    ran = await ended(await start("caller", command, "shop", "--file", "callers.toml", here=tmp_path, stdout=output))
    assert ran.code == 1
    assert ran.err.startswith("nothing was changed: standard output does not take the token, as ")
    assert ran.err.endswith(line)
    assert _files_of(tmp_path) == before


def _files_of(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}
