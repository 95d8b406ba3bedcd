"""The mails of codes of both contracts, as they come out of the whole service."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from calls import parsed, text_of
from otpmail.original import mail_pb2 as original
from otpmail.v1 import otp_pb2

if TYPE_CHECKING:
    from relay import Relay
    from service import Service

ADA = "ada@example.org"
ACME = {
    "PRODUCT_NAME": "Acmé",
    "PRODUCT_URL": "https://acme.example",
    "PRODUCT_COLOR": "#0a7c66",
    "SUPPORT_ADDRESS": "help@acme.example",
    "OTP_DOMAIN": "acme.example",
    "OTP_CODE_HEADER": True,
    "OTP_RETURN_CODE": True,
}


def _html_of(content: bytes) -> str:
    body = parsed(content).get_body(("html",))
    assert body is not None
    return str(body.get_content())


@pytest.mark.service(**ACME)
async def test_a_mail_speaks_for_the_product(service: Service, relay: Relay) -> None:
    """Subject, text and HTML have the product; the code is in a header and in the last line too, as it is set."""
    sent = await service.otp.SendCode(otp_pb2.SendCodeRequest(email=ADA, purpose="password-reset", locale="pl"))
    (mail,) = relay.mails
    message = parsed(mail.content)
    assert message["Subject"] == f"{sent.otp_code} to Twój kod do zmiany hasła w Acmé"
    assert message["One-Time-Code"] == sent.otp_code
    text, html = text_of(mail.content), _html_of(mail.content)
    assert text.splitlines()[-1] == f"@acme.example #{sent.otp_code}"
    assert "przez 10 minut " in text
    for shown in (sent.otp_code, sent.reference, "help@acme.example", "https://acme.example"):
        assert shown in text
        assert shown in html
    assert b"Content-Transfer-Encoding: 7bit" in mail.content.partition(b"text/html")[2]
    assert "#0a7c66" in html


@pytest.mark.service(**ACME)
async def test_a_mail_of_the_originals_contract(service: Service, relay: Relay) -> None:
    """The original's mail looks the same; its code is the text's only number of six digits, valid for two minutes."""
    sent = await service.original_otp.SendCode(original.SendCodeRequest(email=ADA))
    (mail,) = relay.mails
    assert parsed(mail.content)["Subject"] == f"{sent.otpCode} is your Acmé sign-in code"
    text = text_of(mail.content)
    assert set(re.findall(r"\b\d{6}\b", text)) == {sent.otpCode}
    assert "valid for 2 minutes" in text


@pytest.mark.service(OTP_SHOW_REFERENCE=False, OTP_RETURN_CODE=True)
async def test_a_mail_without_settings(service: Service, relay: Relay) -> None:
    """A mail without settings names no product and no reference, has no header of ours, and ends with words."""
    sent = await service.otp.SendCode(otp_pb2.SendCodeRequest(email=ADA, purpose="open-door"))
    (mail,) = relay.mails
    message = parsed(mail.content)
    assert message["Subject"] == f"{sent.otp_code} is your code"
    assert message["One-Time-Code"] is None
    assert "eference" not in text_of(mail.content) + _html_of(mail.content)
    assert "#" not in text_of(mail.content)


@pytest.mark.service(**{**ACME, "OTP_FAILURES_PER_HOUR": 1, "OTP_RESEND_SECONDS": 0})
async def test_a_long_code_is_copied_from_its_mail(service: Service, relay: Relay) -> None:
    """A long code stands in groups in subject, text and HTML, and is valid through both contracts as copied there."""
    validated = []
    for contract in ("v1", "original"):
        email = f"{contract}@example.org"
        await service.otp.SendCode(otp_pb2.SendCodeRequest(email=email))
        await service.otp.ValidateCode(otp_pb2.ValidateCodeRequest(email=email, code="000000"))
        sent = await service.otp.SendCode(otp_pb2.SendCodeRequest(email=email))
        content = relay.mails[-1].content
        found = re.match(r"(\w{4}-\w{4}-\w{4}) is your ", str(parsed(content)["Subject"]))
        assert found is not None
        assert found[1].replace("-", "") == sent.otp_code == parsed(content)["One-Time-Code"]
        assert text_of(content).splitlines()[-1] == f"@acme.example #{sent.otp_code}"
        assert f"\n{found[1]}\n" in text_of(content)
        assert f">{found[1]}</div>" in _html_of(content)
        copied = f" {found[1].lower()}\r\n"
        if contract == "v1":
            answer = await service.otp.ValidateCode(otp_pb2.ValidateCodeRequest(email=email, code=copied))
            validated.append(answer.result == otp_pb2.ValidateCodeResponse.RESULT_VALID)
        else:
            said = await service.original_otp.ValidateCode(original.ValidateCodeRequest(email=email, otpCode=copied))
            validated.append(said.status == original.SUCCESS)
    assert validated == [True, True]
