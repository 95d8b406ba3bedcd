"""The command line as a person uses it: `otpmail dev`, and the client beside it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

import grpc
import pytest
from grpc_reflection.v1alpha import reflection, reflection_pb2

from otpmail.v1 import mail_pb2
from service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Ran(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


async def _otpmail(*arguments: str, server: str) -> Ran:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "otpmail", *arguments),
        env={**os.environ, "OTPMAIL_SERVER": server, "COLUMNS": "200"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


@pytest.fixture
async def dev() -> AsyncIterator[Service]:
    """`otpmail dev`, with nothing set but where it listens."""
    async with Service(command="dev", EMAIL=None, APP_PASSWORD=None, EMAIL_FROM=None) as service:
        await service.wait_until_serving()
        yield service


async def test_a_code_by_the_command_line(dev: Service) -> None:
    """`code send` mails a code and `otpmail dev` prints the mail; `code validate` takes the code once."""
    sent = await _otpmail("code", "send", "ada@example.org", "--json", server=dev.address)
    assert sent.code == 0
    code = json.loads(sent.out)["otp_code"]
    shown = "\n".join(dev.output)
    assert "mail to ada@example.org" in shown
    assert f"Your code is {code}" in shown
    wrong = await _otpmail("code", "validate", "ada@example.org", f"{(int(code) + 1) % 10**6:06d}", server=dev.address)
    assert (wrong.code, wrong.out.strip()) == (1, "wrong code, 4 attempts left")
    right = await _otpmail("code", "validate", "ada@example.org", code, server=dev.address)
    assert (right.code, right.out.strip()) == (0, "valid")
    again = await _otpmail("code", "validate", "ada@example.org", code, "--json", server=dev.address)
    assert again.code == 1
    assert json.loads(again.out)["result"] == "NO_LIVE_CODE"


async def test_short_limits_are_off(dev: Service) -> None:
    """With `otpmail dev` codes follow each other without a wait."""
    for _ in range(3):
        assert (await _otpmail("code", "send", "ada@example.org", server=dev.address)).code == 0


async def test_a_mail_by_the_command_line(dev: Service, tmp_path: Path) -> None:
    """`mail send` sends what it is given, files too, and says for each recipient what the relay said."""
    file = tmp_path / "list.txt"
    file.write_text("eggs")
    arguments = (
        "--to",
        "ada@example.org",
        "--cc",
        "Grace <grace@example.org>",
        "--subject",
        "[x] Grüße",
        "--text",
        "Hi",
    )
    ran = await _otpmail("mail", "send", *arguments, "--attach", str(file), server=dev.address)
    assert ran.code == 0
    assert "relayed" in ran.out
    assert "grace@example.org: 250" in ran.out
    assert any("subject [x] Grüße" in line for line in dev.output)
    queued = await _otpmail("mail", "send", *arguments, "--queue", "--json", server=dev.address)
    assert json.loads(queued.out)["mail"]["state"] == "QUEUED"


async def test_errors_by_the_command_line(dev: Service) -> None:
    """A wrong address is exit code 2 with the field, a service that is not there 3."""
    bad = await _otpmail("mail", "send", "--to", "nobody", server=dev.address)
    assert bad.code == 2
    assert bad.err.startswith("INVALID_ARGUMENT: to[0]: is not a mailbox address")
    away = await _otpmail("code", "send", "ada@example.org", server="127.0.0.1:1")
    assert away.code == 3
    assert away.err.startswith("UNAVAILABLE: ")


async def test_health_by_the_command_line(dev: Service) -> None:
    """`health` is 0 while the service serves, and 3 once it is gone."""
    assert (await _otpmail("health", server=dev.address)).out.strip() == "SERVING"
    assert (await _otpmail("health", "otpmail.v1.OtpService", server=dev.address)).code == 0
    address = dev.address
    await dev.stop()
    assert (await _otpmail("health", server=address)).code == 3


async def test_health_with_a_wrong_port() -> None:
    """`health` without --server reads HOST and PORT, and a wrong one is exit code 2 and a line that names it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "otpmail", "health"), env={**os.environ, "PORT": "abc"}, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert err.startswith(b"PORT: ")


async def test_send_mails_is_not_there_yet(service: Service) -> None:
    """SendMails is UNIMPLEMENTED in plain words, not in an exception's."""
    call = service.mail.SendMails(iter([mail_pb2.SendMailsRequest()]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(call))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "does not offer SendMails" in (caught.value.details() or "")
    assert not service.logged("unforeseen")


async def _list_services(service: Service) -> reflection_pb2.ServerReflectionResponse:
    list_services = service.channel.stream_stream(
        f"/{reflection.SERVICE_NAME}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = list_services(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    return await anext(aiter(call))


async def test_reflection_is_on_in_dev(dev: Service) -> None:
    """`otpmail dev` answers reflection, so that generic clients can list both contracts."""
    answer = await _list_services(dev)
    names = {service.name for service in answer.list_services_response.service}
    assert {"mail.OtpService", "mail.MailService", "otpmail.v1.OtpService", "otpmail.v1.MailService"} <= names


async def test_reflection_is_off_in_serve(service: Service) -> None:
    """`otpmail serve` does not answer reflection unless GRPC_REFLECTION is on."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _list_services(service)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_dev_relay_takes_bdat(dev: Service) -> None:
    """The embedded relay announces PIPELINING and CHUNKING and takes a whole pipelined BDAT transaction."""
    port = int(str(dev.logged("relay-up")[0]["relay"]).rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()
    writer.write(b"EHLO test\r\n")
    announced = b""
    while not announced.splitlines()[-1:] or announced.splitlines()[-1][3:4] == b"-":
        announced += await reader.readline()
    assert b"PIPELINING" in announced
    assert b"CHUNKING" in announced
    body = b"Subject: by chunks\r\n\r\nbody\r\n"
    writer.write(
        b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nBDAT %d LAST\r\n%sQUIT\r\n" % (len(body), body)
    )
    assert [line[:3] for line in (await reader.read()).splitlines()] == [b"250", b"250", b"250", b"221"]
    writer.close()
    await writer.wait_closed()
