"""How long callers wait while the relay is silent or defers, and what becomes of their mails."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from calls import detail, reason, refused_before_deadline
from otpmail.original import mail_pb2 as original_pb2
from otpmail.v1 import mail_pb2, otp_pb2

if TYPE_CHECKING:
    from relay import Relay
    from service import Service

pytestmark = pytest.mark.service(
    MAIL_WAIT_SECONDS=0.4, WORKERS=1, EMAIL_TIMEOUT=1.5, EMAIL_FINAL_TIMEOUT=1.5, OTP_RETURN_CODE=True
)
ADA = "ada@example.org"
SENDING, QUEUED, RELAYED = mail_pb2.Mail.STATE_SENDING, mail_pb2.Mail.STATE_QUEUED, mail_pb2.Mail.STATE_RELAYED
LATER = "451 4.3.0 later"

# A relay is asked how it reads a refused chunk before its first mail, so a fault is set after that.
_STAGES = [
    pytest.param("MAIL"),
    pytest.param("RCPT"),
    pytest.param("BDAT"),
    pytest.param("DATA", marks=pytest.mark.relay(chunking=False)),
    pytest.param(".", marks=pytest.mark.relay(chunking=False)),
]
in_every_stage = pytest.mark.parametrize("stage", _STAGES, ids=["MAIL", "RCPT", "BDAT", "DATA", "dot"])


def _fall_silent(relay: Relay, stage: str, *, times: int | None = None) -> None:
    relay.faults = replace(relay.faults, silent_at=stage, times=times)


async def _last_state(service: Service, mail_id: str) -> mail_pb2.Mail.State.ValueType:
    async for mail in service.mail.WatchMail(mail_pb2.WatchMailRequest(id=mail_id)):
        state = mail.state
    return state


@in_every_stage
async def test_a_silent_relay_does_not_keep_the_caller_of_a_code(service: Service, relay: Relay, stage: str) -> None:
    """The caller is answered SENDING after MAIL_WAIT_SECONDS, the mail goes on, and its code is valid."""
    _fall_silent(relay, stage, times=1)
    sent = await service.otp.SendCode(otp_pb2.SendCodeRequest(email=ADA), timeout=10)
    assert sent.mail.state == SENDING
    assert await _last_state(service, sent.mail.id) == RELAYED
    check = await service.otp.ValidateCode(otp_pb2.ValidateCodeRequest(email=ADA, code=sent.otp_code))
    assert check.result == otp_pb2.ValidateCodeResponse.RESULT_VALID


@in_every_stage
async def test_a_silent_relay_does_not_keep_the_caller_of_a_mail(service: Service, relay: Relay, stage: str) -> None:
    """The caller of any mail is answered SENDING, and the same request later gets the mail's end."""
    _fall_silent(relay, stage, times=1)
    request = mail_pb2.SendMailRequest(to=[ADA], subject="s", text="t", request_id="r1")
    request.ttl.FromSeconds(60)
    sent = (await service.mail.SendMail(request, timeout=10)).mail
    assert sent.state == SENDING
    while sent.state in {SENDING, QUEUED}:  # queued until it goes over another connection
        again = (await service.mail.SendMail(request, timeout=10)).mail
        assert again.id == sent.id
        sent = again
    assert sent.state == RELAYED


async def test_the_originals_clients_do_not_wait_longer_either(service: Service, relay: Relay) -> None:
    """In package `mail` a code or a mail that is not sent in time is FAILED with OK: a retry would send it twice."""
    _fall_silent(relay, "MAIL")
    sent = await service.original_otp.SendCode(original_pb2.SendCodeRequest(email=ADA), timeout=10)
    assert sent.status == original_pb2.FAILED
    request = original_pb2.SendEmailRequest(to=ADA, subject="s", body="b")
    assert (await service.original_mail.SendMail(request, timeout=10)).status == original_pb2.FAILED


@pytest.mark.relay(refuse_recipients={ADA: LATER})
async def test_a_deferred_code_goes_on_after_its_caller_was_answered(service: Service, relay: Relay) -> None:
    """The caller of a deferred code is answered QUEUED with the relay's reply, and the retry sends the mail."""
    sent = await service.otp.SendCode(otp_pb2.SendCodeRequest(email=ADA), timeout=10)
    assert sent.mail.state == QUEUED
    assert [(result.code, result.reply) for result in sent.mail.recipients] == [(451, "later")]
    relay.faults = replace(relay.faults, refuse_recipients={})
    assert await _last_state(service, sent.mail.id) == RELAYED
    check = await service.otp.ValidateCode(otp_pb2.ValidateCodeRequest(email=ADA, code=sent.otp_code))
    assert check.result == otp_pb2.ValidateCodeResponse.RESULT_VALID


@pytest.mark.service(EMAIL_WINDOW=1)
async def test_a_mail_without_a_ttl_goes_on_too(service: Service, relay: Relay) -> None:
    """A mail without a ttl that has not left after MAIL_WAIT_SECONDS is answered QUEUED, and sent once it can be."""
    _fall_silent(relay, "MAIL", times=1)
    await service.otp.SendCode(otp_pb2.SendCodeRequest(email=ADA), timeout=10)
    request = mail_pb2.SendMailRequest(to=[ADA], subject="s", text="t")
    sent = (await service.mail.SendMail(request, timeout=10)).mail
    assert sent.state == QUEUED
    assert await _last_state(service, sent.id) == RELAYED


@pytest.mark.service(MAIL_WAIT_SECONDS=60, EMAIL_TIMEOUT=30, EMAIL_FINAL_TIMEOUT=30)
@pytest.mark.parametrize("milliseconds", [50, 200])
async def test_a_short_deadline_is_told_in_our_words(service: Service, relay: Relay, milliseconds: int) -> None:
    """With a deadline of 50 or 200 ms too callers get the mail's id, unless the machine is too busy for an answer."""
    _fall_silent(relay, "MAIL")
    ours = calls = 0
    while ours < 10:
        calls += 1
        assert calls <= 100, f"{ours} of 100 answers in our words"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.mail.SendMail(
                mail_pb2.SendMailRequest(to=[ADA], subject="s", text="t"), timeout=milliseconds / 1000
            )
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        ours += "was relayed" in (caught.value.details() or "")


@pytest.mark.service(MAIL_WAIT_SECONDS=60, EMAIL_TIMEOUT=30, OTP_RESEND_SECONDS=0)
@pytest.mark.relay(refuse_recipients={ADA: LATER})
async def test_a_deadline_names_the_mail_and_the_relays_last_reply(service: Service) -> None:
    """A deadline that comes first says which mail it was for and what the relay said; the mail is cancelled."""
    request = otp_pb2.SendCodeRequest(email=ADA)
    error = await refused_before_deadline(lambda: service.otp.SendCode(request, timeout=1.5))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert reason(error) == "DEADLINE_EXCEEDED"
    mail_id = detail(error, ErrorInfo).metadata["mail_id"]
    message = error.details() or ""
    assert f"mail {mail_id}" in message
    assert "it is cancelled" in message
    assert LATER in message
    assert (await service.mail.GetMail(mail_pb2.GetMailRequest(id=mail_id))).state == mail_pb2.Mail.STATE_CANCELLED


@pytest.mark.service(MAIL_WAIT_SECONDS=60, EMAIL_TIMEOUT=30, EMAIL_FINAL_TIMEOUT=30, OTP_RESEND_SECONDS=0)
async def test_a_deadline_says_that_the_relay_is_silent(service: Service, relay: Relay) -> None:
    """A deadline while the relay has the mail says so, in both contracts, and the mail is looked up by its id."""
    _fall_silent(relay, "MAIL")
    request = mail_pb2.SendMailRequest(to=[ADA], subject="s", text="t")
    code = original_pb2.SendCodeRequest(email=ADA)
    for error in (
        await refused_before_deadline(lambda: service.mail.SendMail(request, timeout=1)),
        await refused_before_deadline(lambda: service.original_otp.SendCode(code, timeout=1)),
    ):
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "with the relay" in (error.details() or "")
        assert "has not replied" in (error.details() or "")
        mail_id = detail(error, ErrorInfo).metadata["mail_id"]
        assert (await service.mail.GetMail(mail_pb2.GetMailRequest(id=mail_id))).state == SENDING
