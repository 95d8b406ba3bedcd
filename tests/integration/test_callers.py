"""Callers of a running service: by tokens, by certificates over TLS, and what a change of the files does."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from commands import otpmail
from integration.callers import DENIED, RELAYED, UNKNOWN, as_caller, hello, open_channel, status_of, table, write
from otpmail.original import mail_pb2 as original_pb2
from otpmail.v1 import mail_pb2, mail_pb2_grpc, otp_pb2, otp_pb2_grpc
from service import Service

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from integration.callers import Tls


async def test_a_new_user(serve: Callable[..., Awaitable[Service]], tmp_path: Path) -> None:
    """A token that the command prints lets its caller in, nothing else does, and it stands nowhere."""
    file = tmp_path / "callers.toml"
    added = await otpmail("caller", "add", "shop", CALLERS_FILE=str(file))
    token = added.out.strip()
    assert (added.code, len(token)) == (0, 51)
    service = await serve(CALLERS_FILE=file, LOG_LEVEL="debug")
    metadata = (("authorization", f"Bearer {token}"),)
    sent = await service.mail.SendMail(hello(), metadata=metadata)
    assert sent.mail.state == RELAYED
    assert await status_of(service.mail.SendMail(hello())) is UNKNOWN
    assert await status_of(service.mail.SendMail(hello(), metadata=as_caller("shop"))) is UNKNOWN
    assert (
        await status_of(service.original_otp.SendCode(original_pb2.SendCodeRequest(email="ada@example.org"))) is UNKNOWN
    )
    line = await service.wait_for_log("call-refused", count=3, timeout=30)
    assert (line["status"], "caller" in line) == ("UNAUTHENTICATED", False)
    arguments = ("mail", "get", sent.mail.id)
    asked = await otpmail(*arguments, server=service.address, OTPMAIL_TOKEN=token)
    assert (asked.code, "relayed" in asked.out) == (0, True)
    refused = await otpmail(*arguments, server=service.address)
    assert (refused.code, "OTPMAIL_TOKEN" in refused.err) == (3, True)
    assert (await otpmail("health", server=service.address)).code == 0
    assert not any(token in text for text in (*service.output, file.read_text(), added.err))


async def test_an_option_without_a_value(tmp_path: Path) -> None:
    """An option with an empty text, as of a variable that is not set, adds no caller that may do all."""
    file = tmp_path / "callers.toml"
    for option in ("--methods", "--from", "--return-paths", "--priorities", "--san", "--subject"):
        added = await otpmail("caller", "add", "shop", option, "", CALLERS_FILE=str(file))
        assert (added.code, added.out) == (2, ""), option
        assert added.err.startswith(f"{option}: ''"), added.err
    assert not file.exists()


async def test_what_a_caller_may_do(serve: Callable[..., Awaitable[Service]], tmp_path: Path) -> None:
    """A method, an address or a priority that is not allowed is refused in single calls, in streams and in batches."""
    file = tmp_path / "callers.toml"
    write(
        file,
        table("codes", 'methods = ["otpmail.v1.OtpService"]')
        + table("shop", 'from = ["@shop.example"]', 'return_paths = ["bounces@shop.example"]')
        + table("alarm", 'priorities = ["urgent"]'),
    )
    service = await serve(CALLERS_FILE=file, EMAIL_FROM_ALLOWED="@other.example")
    urgent, bad = hello(priority=mail_pb2.PRIORITY_URGENT), {"from": "a@other.example"}
    good = hello(**{"from": "a@shop.example", "return_path": "bounces@shop.example"})
    assert (await service.mail.SendMail(good, metadata=as_caller("shop"))).mail.state == RELAYED
    assert (await service.mail.SendMail(urgent, metadata=as_caller("alarm"))).mail.state == RELAYED
    for caller, refused in (
        ("codes", hello()),
        ("shop", urgent),
        ("shop", hello(**bad)),
        ("shop", hello(return_path="b@shop.example")),
        ("alarm", hello()),
    ):
        assert await status_of(service.mail.SendMail(refused, metadata=as_caller(caller))) is DENIED
        await service.wait_for_log("call-refused", caller=caller)
    assert await status_of(_first(service.mail.SendMails(metadata=as_caller("codes")))) is DENIED
    stream = service.mail.SendMails(metadata=as_caller("shop"))
    batch = [
        hello(request_id="1"),
        hello(request_id="2", priority=mail_pb2.PRIORITY_URGENT),
        hello(request_id="3", **bad),
    ]
    await stream.write(mail_pb2.SendMailsRequest(mails=batch))
    await stream.done_writing()
    codes = {result.request_id: result.code async for response in stream for result in response.results}
    assert codes == {"1": 0, "2": DENIED.value[0], "3": DENIED.value[0]}


async def _first(stream: Any) -> Any:
    return [response async for response in stream]


async def test_callers_see_nothing_of_each_other(serve: Callable[..., Awaitable[Service]], tmp_path: Path) -> None:
    """Codes, request ids, mails and labels of a caller do not exist for another."""
    file = tmp_path / "callers.toml"
    write(file, table("shop") + table("news"))
    service = await serve(CALLERS_FILE=file, OTP_RETURN_CODE=True)
    email = "ada@example.org"
    one = await service.otp.SendCode(otp_pb2.SendCodeRequest(email=email, request_id="r"), metadata=as_caller("shop"))
    check = otp_pb2.ValidateCodeRequest(email=email, code=one.otp_code)
    other = await service.otp.ValidateCode(check, metadata=as_caller("news"))
    assert other.result == otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE
    await service.otp.RevokeCode(otp_pb2.RevokeCodeRequest(email=email), metadata=as_caller("news"))
    mine = await service.otp.ValidateCode(check, metadata=as_caller("shop"))
    assert mine.result == otp_pb2.ValidateCodeResponse.RESULT_VALID
    sent = await service.mail.SendMail(hello(request_id="r", labels={"of": "news"}), metadata=as_caller("news"))
    assert sent.mail.id != one.mail.id
    for request in (mail_pb2.GetMailRequest(id=sent.mail.id), mail_pb2.GetMailRequest(request_id="x")):
        assert await status_of(service.mail.GetMail(request, metadata=as_caller("shop"))) is grpc.StatusCode.NOT_FOUND
    cancel = mail_pb2.CancelMailRequest(id=sent.mail.id)
    assert await status_of(service.mail.CancelMail(cancel, metadata=as_caller("shop"))) is grpc.StatusCode.NOT_FOUND
    for caller, mail in (("shop", one.mail.id), ("news", sent.mail.id)):
        page = await service.mail.ListMails(mail_pb2.ListMailsRequest(), metadata=as_caller(caller))
        assert [listed.id for listed in page.mails] == [mail]


async def test_anonymous_callers(serve: Callable[..., Awaitable[Service]], tmp_path: Path) -> None:
    """With an [anonymous] table the original's clients work unchanged, within its permissions. A token still counts."""
    file = tmp_path / "callers.toml"
    write(file, table("shop") + '[anonymous]\nmethods = ["mail.OtpService", "mail.MailService"]\n')
    service = await serve(CALLERS_FILE=file)
    sent = await service.original_otp.SendCode(original_pb2.SendCodeRequest(email="ada@example.org"))
    assert sent.status == original_pb2.SUCCESS
    assert await status_of(service.mail.SendMail(hello())) is DENIED
    assert (await service.mail.SendMail(hello(), metadata=as_caller("shop"))).mail.state == RELAYED


async def test_a_change_of_the_file(serve: Callable[..., Awaitable[Service]], tmp_path: Path) -> None:
    """A changed file is in force without a signal, and one with a mistake changes nothing.

    The stream of a caller that stays in it goes on. That of another is refused at its next batch.
    """
    file = tmp_path / "callers.toml"
    write(file, table("shop") + table("post"))
    service = await serve(CALLERS_FILE=file)
    streams: list[Any] = [service.mail.SendMails(metadata=as_caller(name)) for name in ("shop", "post")]
    for stream in streams:
        await stream.write(mail_pb2.SendMailsRequest(mails=[hello(request_id="1")]))
        assert (await stream.read()).results[0].mail.state == RELAYED
    write(file, table("news") + table("post"))
    await service.wait_for_log("reloaded", changed=["CALLERS_FILE"])
    assert (await service.mail.SendMail(hello(), metadata=as_caller("news"))).mail.state == RELAYED
    assert await status_of(service.mail.SendMail(hello(), metadata=as_caller("shop"))) is UNKNOWN
    write(file, table("shop", "prioritys = []"))
    line = await service.wait_for_log("reload-failed", setting="CALLERS_FILE")
    assert "line 3: [callers.shop] prioritys is no key of this table" in str(line["message"])
    assert (await service.mail.SendMail(hello(), metadata=as_caller("news"))).mail.state == RELAYED
    for stream in streams:
        await stream.write(mail_pb2.SendMailsRequest(mails=[hello(request_id="2")]))
    assert await status_of(streams[0].read()) is UNKNOWN
    assert (await streams[1].read()).results[0].mail.state == RELAYED
    await streams[1].done_writing()


async def test_health_that_is_not_open(serve: Callable[..., Awaitable[Service]], tmp_path: Path) -> None:
    """With HEALTH_OPEN=false health needs a caller, whatever methods it may call."""
    file = tmp_path / "callers.toml"
    write(file, table("shop", 'methods = ["SendCode"]'))
    service = await serve(CALLERS_FILE=file, HEALTH_OPEN=False, GRPC_REFLECTION=True)
    health: Any = health_pb2_grpc.HealthStub(service.channel)  # whose types know no methods
    assert await status_of(health.Check(health_pb2.HealthCheckRequest())) is UNKNOWN
    assert (await health.Check(health_pb2.HealthCheckRequest(), metadata=as_caller("shop"))).status == 1
    assert (await otpmail("health", server=service.address, OTPMAIL_TOKEN="shop-token")).code == 0


# TLS.


async def test_callers_with_certificates(serve: Callable[..., Awaitable[Service]], tls: Tls, tmp_path: Path) -> None:
    """With an authority of clients a connection needs a certificate of it, whose names tell the caller."""
    file = tmp_path / "callers.toml"
    write(file, f'[callers.shop]\nsans = ["shop.example"]\n{table("news")}')
    service = await serve(CALLERS_FILE=file, TLS_CLIENT_CA_FILE=tls.ca, **tls.settings)
    async with open_channel(service, tls.client("shop.example")) as channel:
        mails = mail_pb2_grpc.MailServiceStub(channel)
        sent = await mails.SendMail(hello())
        assert sent.mail.state == RELAYED
        by_token = mails.GetMail(mail_pb2.GetMailRequest(id=sent.mail.id), metadata=as_caller("news"))
        assert await status_of(by_token) is grpc.StatusCode.NOT_FOUND
    async with open_channel(service, tls.client("other.example")) as channel:
        assert await status_of(mail_pb2_grpc.MailServiceStub(channel).SendMail(hello())) is UNKNOWN
    async with open_channel(service, tls.client()) as channel:
        refused = mail_pb2_grpc.MailServiceStub(channel).SendMail(hello(), metadata=as_caller("news"))
        assert await status_of(refused) is grpc.StatusCode.UNAVAILABLE
    assert await status_of(service.mail.SendMail(hello(), metadata=as_caller("news"))) is grpc.StatusCode.UNAVAILABLE
    tls.client("shop.example")
    files = {"OTPMAIL_CA_FILE": str(tls.ca), "OTPMAIL_CERT_FILE": str(tls.folder / "client.pem")}
    settings: dict[str, Any] = {"server": service.address, **files}
    asked = await otpmail("mail", "get", sent.mail.id, **settings)
    assert (asked.code, "relayed" in asked.out) == (0, True)


async def test_callers_by_their_certificates_alone(serve: Callable[..., Awaitable[Service]], tls: Tls) -> None:
    """Without CALLERS_FILE each certificate is a caller of its own, and sees no mails of others."""
    service = await serve(TLS_CLIENT_CA_FILE=tls.ca, HOST="127.0.0.1", **tls.settings)
    async with (
        open_channel(service, tls.client("a.example")) as one,
        open_channel(service, tls.client("b.example")) as two,
    ):
        sent = await mail_pb2_grpc.MailServiceStub(one).SendMail(hello())
        request = mail_pb2.GetMailRequest(id=sent.mail.id)
        assert (await mail_pb2_grpc.MailServiceStub(one).GetMail(request)).state == RELAYED
        assert await status_of(mail_pb2_grpc.MailServiceStub(two).GetMail(request)) is grpc.StatusCode.NOT_FOUND


async def test_a_new_certificate(serve: Callable[..., Awaitable[Service]], tls: Tls) -> None:
    """A new certificate is shown to new connections, a running stream goes on, and one without its key is not taken."""
    service = await serve(**tls.settings)
    first = await asyncio.to_thread(tls.serial_at, service.address)
    async with open_channel(service, tls.client()) as channel:
        stream: Any = mail_pb2_grpc.MailServiceStub(channel).SendMails()
        await stream.write(mail_pb2.SendMailsRequest(mails=[hello(request_id="1")]))
        assert (await stream.read()).results[0].mail.state == RELAYED
        tls.renew()
        await service.wait_for_log("reloaded", changed=["TLS_CERT_FILE"])
        second = await asyncio.to_thread(tls.serial_at, service.address)
        assert second != first
        write(tls.key, tls.authority.issue_cert("localhost").private_key_pem.bytes().decode())
        await service.wait_for_output("TLS_KEY_FILE: the key is not that of the certificate in TLS_CERT_FILE; what it")
        assert await asyncio.to_thread(tls.serial_at, service.address) == second
        await stream.write(mail_pb2.SendMailsRequest(mails=[hello(request_id="2")]))
        assert (await stream.read()).results[0].mail.state == RELAYED
        await stream.done_writing()


async def test_commands_over_tls(serve: Callable[..., Awaitable[Service]], tls: Tls, tmp_path: Path) -> None:
    """A command that can't reach a service by TLS says which variable to set; with these it reaches it."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    issued = tls.authority.issue_cert("otpmail.example")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tls.cert))
    service = await serve(TLS_CERT_FILE=tls.cert)
    ca, name = {"OTPMAIL_CA_FILE": str(tls.ca)}, {"OTPMAIL_TLS_NAME": "otpmail.example"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "if it speaks TLS, set OTPMAIL_CA_FILE"),
        (ca, "its certificate is for another name; set OTPMAIL_TLS_NAME"),
        ({"OTPMAIL_CA_FILE": str(other)}, "its certificate is not of an authority in OTPMAIL_CA_FILE"),
    ]
    for variables, words in cases:
        refused = await otpmail("health", server=service.address, **variables)
        assert (refused.code, words in refused.err) == (3, True), refused.err
    good: dict[str, Any] = ca | name
    assert (await otpmail("health", server=service.address, **good)).code == 0
    lonely = await otpmail("health", server=service.address, **dict[str, Any](name))
    assert lonely.err == "OTPMAIL_TLS_NAME: is set, and OTPMAIL_CA_FILE is not, so TLS is not used\n"


async def test_tls_1_1(serve: Callable[..., Awaitable[Service]], tls: Tls) -> None:
    """A client that speaks nothing newer than TLS 1.1 has no connection, and one with TLS 1.2 has."""
    service = await serve(**tls.settings)

    def shake_hands(version: ssl.TLSVersion) -> str | None:
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.set_ciphers("ALL:@SECLEVEL=0")  # otherwise the client's own library refuses TLS 1.1
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, version
        host, _, port = service.address.rpartition(":")
        with (
            socket.create_connection((host, int(port)), 30) as tcp,
            context.wrap_socket(tcp, server_hostname="localhost") as wrapped,
        ):
            return wrapped.version()

    with pytest.warns(DeprecationWarning, match="TLSv1"), pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(shake_hands, ssl.TLSVersion.TLSv1_1)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        assert await asyncio.to_thread(shake_hands, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"


# Starts that are refused.


async def _line_of_failed_start(**settings: Any) -> str:
    (line,) = await Service(**settings).refused(2)
    return line


async def test_a_start_that_is_refused(tls: Tls, tmp_path: Path) -> None:
    """Files that can't be used end the start with exit code 2 and one line, which names setting and file."""
    file = tmp_path / "callers.toml"
    line = await _line_of_failed_start(CALLERS_FILE=file)
    assert line == f"CALLERS_FILE: {file} does not exist; otpmail caller add NAME --file {file} makes it"
    write(tls.key, tls.authority.issue_cert("localhost").private_key_pem.bytes().decode())
    line = await _line_of_failed_start(**tls.settings)
    assert line == "TLS_KEY_FILE: the key is not that of the certificate in TLS_CERT_FILE"
    line = await _line_of_failed_start(TLS_CLIENT_CA_FILE=tls.ca)
    assert line == "TLS_CLIENT_CA_FILE: is set, and TLS_CERT_FILE is not"


async def test_every_address_with_a_token(serve: Callable[..., Awaitable[Service]], tmp_path: Path) -> None:
    """An address that strangers can reach needs no ALLOW_ANONYMOUS where callers are asked."""
    file = tmp_path / "callers.toml"
    write(file, table("shop"))
    service = await serve(CALLERS_FILE=file, HOST="0.0.0.0")
    target = f"127.0.0.1:{service.address.rpartition(':')[2]}"
    async with grpc.aio.insecure_channel(target, (("grpc.enable_http_proxy", 0),)) as channel:
        codes = otp_pb2_grpc.OtpServiceStub(channel)
        request = otp_pb2.SendCodeRequest(email="ada@example.org")
        assert await status_of(codes.SendCode(request)) is UNKNOWN
        line = await service.wait_for_log("plain-text-tokens")
        assert (line["level"], line["host"]) == ("warning", "0.0.0.0")
        assert (await codes.SendCode(request, metadata=as_caller("shop"))).mail.state == RELAYED
