"""The original's contract, wire for wire, as its clients use it."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import grpc
import pytest
from google.rpc.error_details_pb2 import QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from calls import bad_field, text_of
from otpmail.original import mail_pb2

if TYPE_CHECKING:
    from relay import Relay
    from service import Service

pytestmark = pytest.mark.service(OTP_RETURN_CODE=True)
ADA = "ada@example.org"


async def _send(service: Service) -> mail_pb2.SendCodeResponse:
    return await service.original_otp.SendCode(mail_pb2.SendCodeRequest(email=ADA))


async def _validate(service: Service, code: str, email: str = ADA) -> tuple[mail_pb2.Status.ValueType, bool]:
    answer = await service.original_otp.ValidateCode(mail_pb2.ValidateCodeRequest(email=email, otpCode=code))
    return answer.status, answer.isValid


async def test_a_code_is_mailed_and_valid_once(service: Service, relay: Relay) -> None:
    """SendCode answers once the relay took the mail; the code in it is valid once."""
    sent = await _send(service)
    assert sent.status == mail_pb2.SUCCESS
    (mail,) = relay.mails
    code = re.search(r"\b\d{6}\b", text_of(mail.content))
    assert code is not None
    assert code[0] == sent.otpCode
    assert await _validate(service, code[0]) == (mail_pb2.SUCCESS, True)
    assert await _validate(service, code[0]) == (mail_pb2.FAILED, False)


async def test_a_code_lives_as_long_as_the_originals(service: Service, relay: Relay) -> None:
    """A code of this contract is valid for two minutes, and the mail says so."""
    await _send(service)
    assert "valid for 2 minutes" in text_of(relay.mails[0].content)


async def test_a_wrong_code_leaves_the_right_one_valid(service: Service) -> None:
    """A wrong code is SUCCESS and not valid, since a code was live; the right one still works."""
    code = (await _send(service)).otpCode
    wrong = f"{(int(code) + 1) % 10**6:06d}"
    assert await _validate(service, wrong) == (mail_pb2.SUCCESS, False)
    assert await _validate(service, "") == (mail_pb2.SUCCESS, False)
    assert await _validate(service, code) == (mail_pb2.SUCCESS, True)


async def test_a_text_that_can_not_be_a_code_is_no_error(service: Service, subtests: pytest.Subtests) -> None:
    """A text of any length is answered with OK: FAILED without a live code, else not valid, and costs no attempt."""
    for typed in ("", "12345", "1234567", "abcdef", "1" * 60_000):
        with subtests.test(typed=typed):
            assert await _validate(service, typed) == (mail_pb2.FAILED, False)
            code = (await _send(service)).otpCode
            for _ in range(11):
                assert await _validate(service, typed) == (mail_pb2.SUCCESS, False)
            assert await _validate(service, f" {code[:3]}\u00a0{code[3:]}\r\n") == (mail_pb2.SUCCESS, True)


async def test_an_invalid_address_is_failed_with_ok(service: Service, relay: Relay, subtests: pytest.Subtests) -> None:
    """A text that is no address is answered with OK and FAILED, and nothing is mailed."""
    for email in ("", "ada", "ada@", "ada@example.org, eve@example.org", "a\r\nb@example.org", "x" * 60_000):
        with subtests.test(email=email):
            sent = await service.original_otp.SendCode(mail_pb2.SendCodeRequest(email=email))
            assert sent == mail_pb2.SendCodeResponse(status=mail_pb2.FAILED)
            assert await _validate(service, "123456", email) == (mail_pb2.FAILED, False)
            assert relay.mails == []


async def test_spaces_around_an_address_are_ignored(service: Service, relay: Relay) -> None:
    """Blanks around an address are ignored in every method."""
    sent = await service.original_otp.SendCode(mail_pb2.SendCodeRequest(email=f"{ADA}\n"))
    assert await _validate(service, sent.otpCode, f"\u00a0{ADA} ") == (mail_pb2.SUCCESS, True)
    request = mail_pb2.SendEmailRequest(to=f"\ufeff{ADA}\t", subject="s", body="b")
    assert (await service.original_mail.SendMail(request)).status == mail_pb2.SUCCESS
    assert [mail.recipients for mail in relay.mails] == [(ADA,)] * 2


async def test_ten_calls_at_once_all_succeed(service: Service, relay: Relay) -> None:
    """Ten SendCode calls for one address at once are ten mails with one and the same code."""
    answers = await asyncio.gather(*(_send(service) for _ in range(10)))
    assert [answer.status for answer in answers] == [mail_pb2.SUCCESS] * 10
    assert len({answer.otpCode for answer in answers}) == 1
    assert len(relay.mails) == 10


@pytest.mark.service(OTP_LIFESPAN_SECONDS=1, OTP_ATTEMPTS=100, OTP_FAILURES_PER_HOUR=1000, OTP_FAILURES_PER_DAY=1000)
async def test_an_expired_code_is_not_compared(service: Service) -> None:
    """Once a code has expired the answer is FAILED, as if there had never been one."""
    code = (await _send(service)).otpCode
    wrong = f"{(int(code) + 1) % 10**6:06d}"
    async with asyncio.timeout(30):
        while await _validate(service, wrong) == (mail_pb2.SUCCESS, False):  # noqa: ASYNC110 -- nothing announces it
            await asyncio.sleep(0.05)
    assert await _validate(service, code) == (mail_pb2.FAILED, False)


async def test_an_address_without_a_code(service: Service) -> None:
    """A check for an address without a code is FAILED."""
    assert await _validate(service, "123456") == (mail_pb2.FAILED, False)


@pytest.mark.relay(refuse_recipients={ADA: "550 5.1.1 no such user"})
async def test_a_refused_address_is_failed_with_ok(service: Service) -> None:
    """When the relay rejects the address, SendCode is FAILED with gRPC OK, and the code is void."""
    assert (await _send(service)).status == mail_pb2.FAILED
    assert await _validate(service, "123456") == (mail_pb2.FAILED, False)


@pytest.mark.service(OTP_RETURN_CODE=False)
async def test_the_code_is_not_in_the_answer_by_default(service: Service) -> None:
    """Only OTP_RETURN_CODE puts the code into the answer."""
    assert (await _send(service)).otpCode == ""


async def test_send_mail(service: Service, relay: Relay) -> None:
    """SendMail sends a text mail and answers when the relay took it."""
    request = mail_pb2.SendEmailRequest(to=ADA, subject="Grüße", body="Guten Tag.\nHeute nichts.")
    assert (await service.original_mail.SendMail(request)).status == mail_pb2.SUCCESS
    (mail,) = relay.mails
    assert mail.recipients == (ADA,)
    assert text_of(mail.content) == "Guten Tag.\nHeute nichts.\n"


async def test_send_mail_without_recipient(service: Service, relay: Relay, subtests: pytest.Subtests) -> None:
    """An empty `to` is INVALID_ARGUMENT with exactly the original's text, which clients may compare."""
    for to in ("", " \n"):
        with subtests.test(to=to):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await service.original_mail.SendMail(mail_pb2.SendEmailRequest(to=to, subject="x", body="y"))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details() == "recipient email is required"
            assert bad_field(caught.value) == "to"
            assert relay.mails == []


async def test_bad_input_names_the_contracts_own_field(service: Service, subtests: pytest.Subtests) -> None:
    """A mail that cannot be sent is INVALID_ARGUMENT, with the field's name in this contract."""
    for field, value in (("to", "not an address"), ("subject", "a\r\nBcc: x@y.z"), ("body", "a\0b")):
        with subtests.test(field=field, value=value):
            request = mail_pb2.SendEmailRequest(**{"to": ADA, "subject": "s", "body": "b", field: value})
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await service.original_mail.SendMail(request)
            assert bad_field(caught.value) == field


@pytest.mark.relay(final_reply="554 5.7.1 not wanted")
async def test_a_refused_mail_is_an_error(service: Service) -> None:
    """Any failure of SendMail is a gRPC error, with what the relay said."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.original_mail.SendMail(mail_pb2.SendEmailRequest(to=ADA, subject="s", body="b"))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "554 5.7.1 not wanted" in (caught.value.details() or "")


@pytest.mark.service(EMAIL_PORT=1, EMAIL_SECURITY="plain", wait=False)
async def test_without_a_relay(service: Service) -> None:
    """While the relay is down SendCode is FAILED with gRPC OK, and SendMail an error."""
    await service.wait_for_log("relay-down")
    assert (await _send(service)).status == mail_pb2.FAILED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.original_mail.SendMail(mail_pb2.SendEmailRequest(to=ADA, subject="s", body="b"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.service(OTP_ATTEMPTS=2, OTP_FAILURES_PER_HOUR=3)
async def test_an_address_under_attack_is_locked(service: Service, relay: Relay) -> None:
    """After too many wrong codes SendCode and ValidateCode are FAILED with OK; the trailers say how long, and why.

    Before that mails are not limited: these clients may call ten times at once.
    """
    sent = [await _send(service) for _ in range(11)][-1]
    wrong = f"{(int(sent.otpCode) + 1) % 10**6:06d}"
    for _ in range(2):
        await _validate(service, wrong)
    sent = await _send(service)
    await _validate(service, f"{(int(sent.otpCode) + 1) % 10**6:06d}")
    mailed = len(relay.mails)
    for call in (
        service.original_otp.SendCode(mail_pb2.SendCodeRequest(email=ADA)),
        service.original_otp.ValidateCode(mail_pb2.ValidateCodeRequest(email=ADA, otpCode=sent.otpCode)),
    ):
        assert (await call).status == mail_pb2.FAILED
        trailers = dict(await call.trailing_metadata())
        status = Status.FromString(trailers["grpc-status-details-bin"])
        details = {packed.TypeName(): packed.value for packed in status.details}
        assert status.code == 0  # as the call's, without which a client can't read the details
        assert set(details) == {"google.rpc.RetryInfo", "google.rpc.QuotaFailure"}
        assert 3500 < RetryInfo.FromString(details["google.rpc.RetryInfo"]).retry_delay.seconds <= 3600
        [violation] = QuotaFailure.FromString(details["google.rpc.QuotaFailure"]).violations
        assert (violation.subject, violation.quota_id) == ("address", "OTP_FAILURES_PER_HOUR")
    assert len(relay.mails) == mailed
