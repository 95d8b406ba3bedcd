"""Codes and mails through a real Postfix and a real Exim, read back from where they deliver."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from calls import parsed, text_of
from integration.servers import DOMAIN, LATER, UNKNOWN, USER, MailServer
from otpmail.v1 import address_pb2, mail_pb2, otp_pb2
from service import Service

if TYPE_CHECKING:
    from relay import Certificates


@pytest.mark.parametrize("security", ["tls", "starttls"])
async def test_a_code_and_a_mail(server: MailServer, certificates: Certificates, security: str) -> None:
    """A code read from its mailbox is valid; a mail with all its parts arrives unchanged."""
    ada = f"ada-{security}@{DOMAIN}"
    async with Service(**server.settings(certificates.ca_file, security)) as service:
        await service.wait_until_serving()
        await service.otp.SendCode(otp_pb2.SendCodeRequest(email=ada))
        (delivered,) = await server.mails(ada, 1)
        code = re.search(r"\b\d{6}\b", text_of(delivered))
        assert code is not None
        checked = await service.otp.ValidateCode(otp_pb2.ValidateCodeRequest(email=ada, code=code[0]))
        assert checked.result == otp_pb2.ValidateCodeResponse.RESULT_VALID

        text = "Grüße\n.\n..\nFrom here\n \ntrailing  \n" + "lang " * 500 + "\n"
        grace, bcc = f"grace-{security}@{DOMAIN}", f"bcc-{security}@{DOMAIN}"
        attachment = mail_pb2.Attachment(filename="ä.bin", content=bytes(range(256)) * 4000)
        answer = await service.mail.SendMail(
            mail_pb2.SendMailRequest(
                to=[f"Grace <{grace}>"],
                bcc=[bcc],
                subject="Prüfung",
                text=text,
                html="<p>ü</p>",
                attachments=[attachment],
            )
        )
        assert answer.mail.state == mail_pb2.Mail.STATE_RELAYED
        for address in (grace, bcc):
            (delivered,) = await server.mails(address, 1)
            message = parsed(delivered)
            assert text_of(delivered) == text
            assert message["Subject"] == "Prüfung"
            assert message["Message-ID"] == answer.mail.message_id
            assert message["Bcc"] is None
            (part,) = message.iter_attachments()
            assert (part.get_filename(), part.get_content()) == ("ä.bin", attachment.content)


async def test_recipients_one_by_one(server: MailServer, certificates: Certificates) -> None:
    """An unknown recipient is rejected, one is deferred until the ttl is over, and the third gets the mail once."""
    good = f"good@{DOMAIN}"
    async with Service(**server.settings(certificates.ca_file)) as service:
        await service.wait_until_serving()
        request = mail_pb2.SendMailRequest(to=[UNKNOWN, LATER, good], text="t", ttl={"seconds": 4})  # type: ignore[arg-type]
        mail = (await service.mail.SendMail(request)).mail
        assert mail.state == mail_pb2.Mail.STATE_PARTIAL
        assert [result.code // 10 for result in mail.recipients] == [55, 45, 25]
        assert len(await server.mails(good, 1)) == 1


async def test_suppression(server: MailServer, certificates: Certificates) -> None:
    """An unknown recipient is left out of later mails; one that is refused otherwise, or deferred, is not.

    The relay's refusal to pass mail on to another domain (5.7.1), and a mailbox that is busy (4.2.1), say nothing of an
    address.
    """
    good, elsewhere = f"known@{DOMAIN}", "ada@example.net"
    async with Service(**server.settings(certificates.ca_file)) as service:
        await service.wait_until_serving()

        async def send() -> list[mail_pb2.RecipientResult]:
            to = [UNKNOWN, LATER, elsewhere, good]
            request = mail_pb2.SendMailRequest(to=to, text="t", ttl={"seconds": 4})  # type: ignore[arg-type]
            mail = (await service.mail.SendMail(request)).mail
            assert mail.state == mail_pb2.Mail.STATE_PARTIAL
            assert [result.address for result in mail.recipients] == to
            return list(mail.recipients)

        first = await send()
        assert [result.enhanced_code for result in first[:3]] == ["5.1.1", "4.2.1", "5.7.1"]
        assert not any(result.HasField("suppression") for result in first)
        asked = server.log().count(UNKNOWN)
        second = await send()
        assert [result.HasField("suppression") for result in second] == [True, False, False, False]
        assert (second[0].code, second[0].suppression.reason[:9]) == (0, "550 5.1.1")
        assert len(await server.mails(good, 2)) == 2
        for address, is_suppressed in ((UNKNOWN, True), (LATER, False), (elsewhere, False), (good, False)):
            kept = await service.address_service.GetAddress(address_pb2.GetAddressRequest(email=address))
            assert kept.HasField("suppression") == is_suppressed, address
        sent = await service.otp.SendCode(otp_pb2.SendCodeRequest(email=UNKNOWN))
        assert (sent.mail.state, sent.challenge_id) == (mail_pb2.Mail.STATE_FAILED, "")
        assert sent.mail.recipients[0].suppression == second[0].suppression
        assert server.log().count(UNKNOWN) == asked


async def test_an_internationalised_local_part(server: MailServer, certificates: Certificates) -> None:
    """Both servers announce SMTPUTF8, so an address that is not ASCII is accepted."""
    address = f"jürgen@{DOMAIN}"
    async with Service(**server.settings(certificates.ca_file)) as service:
        await service.wait_until_serving()
        mail = (await service.mail.SendMail(mail_pb2.SendMailRequest(to=[address], subject="ü", text="ü"))).mail
        assert mail.state == mail_pb2.Mail.STATE_RELAYED
        (delivered,) = await server.mails(address, 1)
        assert text_of(delivered) == "ü\n"


@pytest.mark.parametrize(
    ("return_path", "delivered_as"),
    [("<>", "<>"), (f"bounces+ada=example.org@{DOMAIN}", f"<bounces+ada=example.org@{DOMAIN}>")],
    ids=["null", "VERP"],
)
async def test_a_return_path(
    server: MailServer, certificates: Certificates, request: pytest.FixtureRequest, return_path: str, delivered_as: str
) -> None:
    """Real servers take the null return path and one for each recipient, and write it into the Return-Path field."""
    address = f"return-path-{request.node.callspec.id}@{DOMAIN}"
    async with Service(**server.settings(certificates.ca_file), EMAIL_FROM_ALLOWED=f"@{DOMAIN}") as service:
        await service.wait_until_serving()
        mail = mail_pb2.SendMailRequest(
            to=[address],
            text="t",
            return_path=return_path,
            sender=f"assistant@{DOMAIN}",
            message_id=f"<1.{address}>",
            headers=[mail_pb2.Header(name="X-A", value="1"), mail_pb2.Header(name="X-A", value="2")],
        )
        assert (await service.mail.SendMail(mail)).mail.state == mail_pb2.Mail.STATE_RELAYED
        (delivered,) = await server.mails(address, 1)
    message = parsed(delivered)
    assert (message["Return-Path"], message["Sender"]) == (delivered_as, f"assistant@{DOMAIN}")
    assert (message["Message-ID"], message.get_all("X-A")) == (f"<1.{address}>", ["1", "2"])


async def test_many_mails_at_once(server: MailServer, certificates: Certificates) -> None:
    """Three hundred mails at once over five recycled connections each arrive once, unmixed."""
    addresses = [f"many{n}@{DOMAIN}" for n in range(300)]
    async with Service(**server.settings(certificates.ca_file), EMAIL_MAX_MESSAGES=20) as service:
        await service.wait_until_serving()
        answers = await asyncio.gather(
            *(service.mail.SendMail(mail_pb2.SendMailRequest(to=[a], subject=a, text=a)) for a in addresses)
        )
    assert {answer.mail.state for answer in answers} == {mail_pb2.Mail.STATE_RELAYED}
    for address in addresses:
        (delivered,) = await server.mails(address, 1)
        assert parsed(delivered)["Subject"] == address
        assert text_of(delivered) == f"{address}\n"


async def test_odd_mails(server: MailServer, certificates: Certificates) -> None:
    """Real servers take addresses in quotes, a long one, and an 8bit mail as a file; the header arrives as it was."""
    addresses = [f"odd..dots.@{DOMAIN}", f'"odd name"@{DOMAIN}', f"{'a' * 64}{'b' * 10}@{DOMAIN}"]
    inner = "Subject: inner\r\nContent-Transfer-Encoding: 8bit\r\n\r\nMärz\r\n".encode()
    unsubscribe = f"<https://example.org/u/dG9rZW4=?list={'3' * 100}>"
    async with Service(**server.settings(certificates.ca_file)) as service:
        await service.wait_until_serving()
        request = mail_pb2.SendMailRequest(
            to=addresses,
            text="one\x0btwo\n",
            headers=[mail_pb2.Header(name="List-Unsubscribe", value=unsubscribe)],
            attachments=[mail_pb2.Attachment(content_type="message/rfc822", content=inner)],
        )
        mail = (await service.mail.SendMail(request)).mail
        assert mail.state == mail_pb2.Mail.STATE_RELAYED
        for result in mail.recipients:
            (delivered,) = await server.mails(result.address, 1)
    assert inner.replace(b"\r\n", b"\n") in delivered.replace(b"\r\n", b"\n")
    assert parsed(delivered)["List-Unsubscribe"] == unsubscribe
    assert text_of(delivered) == "one\x0btwo\n"


@pytest.mark.parametrize("mechanism", ["plain", "login", "cram-md5"])
async def test_each_mechanism(server: MailServer, certificates: Certificates, mechanism: str) -> None:
    """`otpmail check` signs in by each mechanism that the server runs, and finds nothing to change."""
    service = Service(command="check", **server.settings(certificates.ca_file), EMAIL_AUTH=mechanism)
    try:
        await service.spawn()
        assert await service.wait_exited() == 0, service.output
    finally:
        await service.close()
    assert any(f"signed in as {USER}" in line for line in service.output)
