"""The log lines of a call and of its mails have the ids that the caller sent: `otpmail serve` as a process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from otpmail.v1 import mail_pb2, otp_pb2

if TYPE_CHECKING:
    from relay import Relay
    from service import LogLine, Service

_PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def _request(person: str, **more: object) -> mail_pb2.SendMailRequest:
    return mail_pb2.SendMailRequest(to=[f"{person}@example.org"], text="Hi", **more)  # type: ignore[arg-type]


async def _settled(service: Service, mail_id: str, event: str = "mail-settled") -> LogLine:
    return await service.wait_for_log(event, mail=mail_id)


@pytest.mark.relay(refuse_recipients={"bad@example.org": "550 5.1.1 unknown"})
@pytest.mark.service(LOG_LEVEL="debug")
async def test_each_call_has_its_own_ids(service: Service) -> None:
    """The lines of 20 calls at once have the id of their own call, and that of a call without ids has none."""

    async def call(number: int) -> None:
        metadata = (("x-request-id", f"r{number}"), ("traceparent", _PARENT))
        person = "bad" if number % 2 else f"p{number}"
        answer = await service.mail.SendMail(_request(person), metadata=metadata)
        for event in ("mail-accepted", "mail-settled"):
            line = await _settled(service, answer.mail.id, event)
            assert (line["x-request-id"], line["traceparent"]) == (f"r{number}", _PARENT)

    await asyncio.gather(*map(call, range(20)))
    answer = await service.mail.SendMail(_request("ada"))
    line = await _settled(service, answer.mail.id)
    assert not {"x-request-id", "traceparent"} & line.keys()
    for line in service.logged("relay-up") + service.logged("connection-opened"):
        assert "x-request-id" not in line


@pytest.mark.relay(refuse_recipients={"bad@example.org": "451 4.3.0 later"})
async def test_a_mail_whose_call_has_ended(service: Service, relay: Relay) -> None:
    """A guaranteed mail keeps the ids of its call after that has ended: they stand where it is deferred and expires."""
    mails = {}
    for name in ("first", "second"):
        request = _request("bad", wait_for=mail_pb2.WAIT_FOR_QUEUE)
        request.ttl.FromMilliseconds(3000)
        answer = await service.mail.SendMail(request, metadata=(("x-request-id", name),))
        mails[name] = answer.mail.id
    for name, mail_id in mails.items():
        for event in ("mail-deferred", "mail-settled"):
            assert (await _settled(service, mail_id, event))["x-request-id"] == name
    assert not relay.mails


@pytest.mark.service(LOG_LEVEL="debug", wait=False)
async def test_a_call_without_a_mail(service: Service) -> None:
    """A line that a call logs itself has its ids, cleaned; malformed ones are left out."""
    request = otp_pb2.ValidateCodeRequest(email="ada@example.org", code="123456")
    metadata = (("x-request-id", 'a] "b'), ("traceparent", "00-0-0-0"))
    await service.otp.ValidateCode(request, metadata=metadata)
    line = await service.wait_for_log("code-checked")
    assert line["x-request-id"] == "a_b"
    assert "traceparent" not in line
