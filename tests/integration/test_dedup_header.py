"""EMAIL_DEDUP_HEADER: a header field with which a relay drops a mail that it has had before."""

from dataclasses import replace
from email import message_from_bytes

import pytest

from otpmail.v1 import mail_pb2
from relay import Relay
from service import Service

HEADER = "Resend-Idempotency-Key"


@pytest.mark.service(EMAIL_DEDUP_HEADER=HEADER, WORKERS=1)
async def test_the_header_is_the_same_at_each_attempt(service: Service, relay: Relay) -> None:
    """Each attempt of a mail has its id in the header, whatever its message id is; another mail has another."""
    contents: list[bytes] = []

    def defer_once(content: bytes) -> str:
        contents.append(content)
        return "451 4.3.0 later" if len(contents) == 1 else "250 2.0.0 taken"

    def keys() -> list[str]:
        return [str(message_from_bytes(content)[HEADER]) for content in contents]

    relay.faults = replace(relay.faults, final_reply=defer_once)
    request = mail_pb2.SendMailRequest(to=["ada@example.org"], subject="s", text="t", message_id="first@example.org")
    first = (await service.mail.SendMail(request)).mail
    assert first.state == mail_pb2.Mail.STATE_RELAYED
    assert keys() == [first.id, first.id]
    second = (await service.mail.SendMail(request)).mail
    assert keys() == [first.id, first.id, second.id]


@pytest.mark.service(EMAIL_DEDUP_HEADER=HEADER, WORKERS=1)
async def test_a_header_of_the_caller(service: Service, relay: Relay) -> None:
    """A caller that writes the header itself keeps its value, and there is one of them."""
    header = mail_pb2.Header(name=HEADER.lower(), value="mine")
    request = mail_pb2.SendMailRequest(to=["ada@example.org"], subject="s", text="t", headers=[header])
    await service.mail.SendMail(request)
    assert message_from_bytes(relay.mails[0].content).get_all(HEADER) == ["mine"]


@pytest.mark.service(EMAIL_DEDUP_HEADER=HEADER, WORKERS=1)
async def test_a_large_mail(service: Service, relay: Relay) -> None:
    """A mail that is written in steps has the header too."""
    request = mail_pb2.SendMailRequest(to=["ada@example.org"], subject="s", text="t" * 200_000)
    mail = (await service.mail.SendMail(request)).mail
    assert message_from_bytes(relay.mails[0].content)[HEADER] == mail.id
