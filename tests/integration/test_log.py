"""The log of `otpmail serve` about mails and refused calls, as an operator reads it."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc
import pytest

from otpmail.v1 import mail_pb2, otp_pb2

if TYPE_CHECKING:
    from relay import Relay
    from service import Service

_QUEUED = "250 2.0.0 Ok: queued as 4Q2X3y5zzWz9s"


async def _send_code(service: Service, email: str) -> otp_pb2.SendCodeResponse:
    return await service.otp.SendCode(otp_pb2.SendCodeRequest(email=email, request_id=f"for {email}"))


@pytest.mark.relay(final_reply=_QUEUED)
async def test_i_got_no_code(service: Service, relay: Relay) -> None:
    """The line of a code has all that finds it at the relay; other mails have none, and no line an address in full."""
    sent = await _send_code(service, "ada@example.org")
    line = await service.wait_for_log("mail-settled", mail=sent.mail.id)
    assert (line["level"], line["state"], line["code"], line["to"]) == ("info", "RELAYED", True, "a***@example.org")
    assert (line["relay"], line["queue_id"]) == (f"127.0.0.1:{relay.port}", "4Q2X3y5zzWz9s")
    assert (line["attempts"], line["request_id"]) == (1, "for ada@example.org")
    assert 0 <= int(str(line["ms"])) < 10_000
    assert abs((datetime.fromisoformat(str(line["time"])) - datetime.now(UTC)).total_seconds()) < 60
    assert relay.mails[0].content
    await service.mail.SendMail(mail_pb2.SendMailRequest(to=["bob@example.org"], text="Hi"))
    last = await _send_code(service, "eve@example.org")
    await service.wait_for_log("mail-settled", mail=last.mail.id)
    assert len(service.logged("mail-settled")) == 2


@pytest.mark.relay(refuse_recipients={"bad@example.org": "550 5.1.1 <bad@example.org>: unknown"})
@pytest.mark.service(LOG_MAILS="failed", LOG_ADDRESSES="hashed")
async def test_a_failed_mail_has_its_reply(service: Service) -> None:
    """With LOG_MAILS=failed only what failed has a line, with the last reply, in which no address is left."""
    await _send_code(service, "ada@example.org")
    answer = await service.mail.SendMail(mail_pb2.SendMailRequest(to=["bad@example.org"], text="Hi"))
    line = await service.wait_for_log("mail-settled", mail=answer.mail.id)
    assert re.fullmatch("[0-9a-f]{16}", str(line["to"]))
    assert line["reply"] == f"550 5.1.1 <{line['to']}>: unknown"
    assert len(service.logged("mail-settled")) == 1


@pytest.mark.service(LOG_MAILS="all", LOG_ADDRESSES="full")
async def test_all_mails_with_their_addresses(service: Service) -> None:
    """With LOG_MAILS=all and LOG_ADDRESSES=full each mail has a line, with its addresses as they are."""
    answer = await service.mail.SendMail(mail_pb2.SendMailRequest(to=["ada@example.org", "b@example.org"], text="Hi"))
    line = await service.wait_for_log("mail-settled", mail=answer.mail.id)
    assert line["to"] == "ada@example.org,b@example.org"


async def test_a_refused_call_has_a_line(service: Service) -> None:
    """A refused call has a line with method, peer, status, reason and address; a flood of them has few lines."""

    async def ask(email: str) -> None:
        with suppress(grpc.aio.AioRpcError):
            await service.otp.SendCode(otp_pb2.SendCodeRequest(email=email), metadata=(("x-request-id", email),))

    await ask("ada@-")
    line = await service.wait_for_log("call-refused")
    assert (line["method"], line["status"]) == ("/otpmail.v1.OtpService/SendCode", "INVALID_ARGUMENT")
    assert (line["reason"], line["address"], line["x-request-id"]) == ("INVALID_ARGUMENT", "a***@-", "ada@-")
    assert re.fullmatch(r"ipv[46]:\S+:\d+", str(line["peer"]))
    assert "email" in str(line["said"])
    await asyncio.gather(*(ask(f"p{number}@-") for number in range(500)))
    with suppress(grpc.aio.AioRpcError):
        await service.mail.GetMail(mail_pb2.GetMailRequest(id="nothing"))
    await service.wait_for_log("call-refused", reason="NOT_FOUND")
    assert 10 <= len(service.logged("call-refused")) < 30
    summary = await service.wait_for_log("calls-refused", timeout=60)
    assert int(str(summary["count"])) > 450
