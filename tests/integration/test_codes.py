"""otpmail.v1.OtpService through the whole service."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import grpc
import pytest

from calls import bad_field, parsed, quota_setting, quota_subject, reason, retry_seconds, text_of
from faults.wall import WallService
from otpmail.v1 import address_pb2, mail_pb2, otp_pb2
from relay import Faults
from service import relay_settings

if TYPE_CHECKING:
    from pathlib import Path

    from relay import Certificates, Relay
    from service import Service

pytestmark = pytest.mark.service(OTP_RETURN_CODE=True, OTP_RESEND_SECONDS=0)
ADA = "ada@example.org"
VALID, WRONG, NONE, SPENT = (
    otp_pb2.ValidateCodeResponse.RESULT_VALID,
    otp_pb2.ValidateCodeResponse.RESULT_WRONG_CODE,
    otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE,
    otp_pb2.ValidateCodeResponse.RESULT_TOO_MANY_ATTEMPTS,
)


async def _send(service: Service, **fields: object) -> otp_pb2.SendCodeResponse:
    return await service.otp.SendCode(otp_pb2.SendCodeRequest(**{"email": ADA, **fields}))  # type: ignore[arg-type]


async def _validate(service: Service, code: str, **fields: str) -> otp_pb2.ValidateCodeResponse:
    return await service.otp.ValidateCode(otp_pb2.ValidateCodeRequest(**{"email": ADA, "code": code, **fields}))


def _wrong(code: str, by: int = 1) -> str:
    return f"{(int(code) + by) % 10**6:06d}"


async def test_a_code_travels_to_a_mailbox_and_back(service: Service, relay: Relay) -> None:
    """The code from the mail is valid, also as a person may type it; the mail carries what the answer says."""
    sent = await _send(service)
    assert sent.mail.state == mail_pb2.Mail.STATE_RELAYED
    (mail,) = relay.mails
    message = parsed(mail.content)
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"] == sent.mail.message_id
    assert sent.reference in text_of(mail.content)
    assert sent.otp_code in text_of(mail.content)
    typed = f"{sent.otp_code[:3]} {sent.otp_code[3:]}".translate({ord("0") + d: 0xFF10 + d for d in range(10)})
    assert (await _validate(service, typed)).result == VALID
    assert (await _validate(service, typed)).result == NONE


async def test_a_pasted_code_and_address_are_read(service: Service, relay: Relay) -> None:
    """A code pasted with line ends, bidi marks and a soft hyphen is valid, with blanks around the address."""
    sent = await _send(service, email=f"\u00a0{ADA}\r\n")
    assert relay.mails[0].recipients == (ADA,)
    typed = f"\ufeff\u202d{sent.otp_code[:3]}\u00ad\u2013{sent.otp_code[3:]}\u202c\r\n"
    assert (await _validate(service, typed, email=f"\t{ADA}\u200b")).result == VALID


async def test_a_text_that_can_not_be_a_code_costs_no_attempt(service: Service, subtests: pytest.Subtests) -> None:
    """A text of another length or alphabet is WRONG_CODE, NO_LIVE_CODE without one, and costs no attempt."""
    for typed in ("12345", "1234567", "12 34 5a", "\u200b", "1" * 1000):
        with subtests.test(typed=typed):
            assert (await _validate(service, typed)).result == NONE
            sent = await _send(service)
            for _ in range(11):
                answer = await _validate(service, typed)
                assert (answer.result, answer.attempts_left) == (WRONG, 5)
            assert (await _validate(service, sent.otp_code)).result == VALID


def _seconds_between(first: otp_pb2.SendCodeResponse, second: otp_pb2.SendCodeResponse) -> float:
    """Return how far the ends of two codes are apart."""
    return abs(second.expire_time.ToMicroseconds() - first.expire_time.ToMicroseconds()) / 1e6


async def test_a_resend_is_the_same_code(service: Service, relay: Relay) -> None:
    """A resend mails the same code while it lives, with the same challenge and expiry."""
    first, second = await _send(service), await _send(service)
    assert second.otp_code == first.otp_code
    assert second.challenge_id == first.challenge_id
    assert _seconds_between(first, second) < 2  # two clocks are read, and the process may stand still in between
    assert len(relay.mails) == 2


async def test_a_resend_near_the_end_is_a_new_code(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """With less than half of its life left, a code is replaced by one with a whole life, which keeps the attempts."""
    life = 600.0
    settings = relay_settings(relay, certificates, tmp_path / "token")
    settings |= {"OTP_RETURN_CODE": True, "OTP_RESEND_SECONDS": 0, "OTP_LIFESPAN_SECONDS": life}
    async with WallService(tmp_path, **settings) as service:
        await service.wait_until_serving()
        first = await _send(service)
        await _validate(service, _wrong(first.otp_code))
        service.let_pass(life / 2 - 100)  # the test takes some seconds, too
        again = await _send(service)
        assert (again.otp_code, again.challenge_id) == (first.otp_code, first.challenge_id)
        assert _seconds_between(first, again) < 2  # after 200 s
        service.let_pass(101)
        again = await _send(service)
        assert again.otp_code != first.otp_code
        assert again.expire_time.ToMicroseconds() - first.expire_time.ToMicroseconds() > life / 2 * 1_000_000
        answer = await _validate(service, first.otp_code)
        assert (answer.result, answer.attempts_left) == (WRONG, 3)
        assert (await _validate(service, again.otp_code)).result == VALID


@pytest.mark.service(OTP_ATTEMPTS=3)
async def test_exactly_n_attempts(service: Service) -> None:
    """The right code on the last attempt passes; after N wrong ones even the right code does not."""
    sent = await _send(service)
    for left in (2, 1):
        answer = await _validate(service, _wrong(sent.otp_code, left))
        assert (answer.result, answer.attempts_left) == (WRONG, left)
    assert (await _validate(service, sent.otp_code)).result == VALID
    sent = await _send(service)
    for place in range(3):
        assert (await _validate(service, _wrong(sent.otp_code, place + 1))).result == WRONG
    answer = await _validate(service, sent.otp_code)
    assert answer.result == SPENT
    assert answer.HasField("retry_time")


@pytest.mark.service(OTP_ATTEMPTS=100, OTP_FAILURES_PER_HOUR=10000, OTP_FAILURES_PER_DAY=10000)
async def test_two_hundred_calls_use_a_code_once(service: Service) -> None:
    """Exactly one of 200 checks of the right code at the same moment is VALID."""
    sent = await _send(service)
    answers = await asyncio.gather(*(_validate(service, sent.otp_code) for _ in range(200)))
    counts = Counter(answer.result for answer in answers)
    assert counts[VALID] == 1
    assert counts[NONE] == 199


@pytest.mark.service(OTP_ATTEMPTS=2, OTP_FAILURES_PER_HOUR=3, OTP_UNDER_ATTACK="lock")
async def test_failures_outlive_a_code(service: Service) -> None:
    """A new code does not forgive failures: once they are spent no code is mailed, and the error says until when."""
    for _ in range(2):
        sent = await _send(service)
        for place in range(2):
            answer = await _validate(service, _wrong(sent.otp_code, place + 1))
    assert answer.result == SPENT  # the fourth, of three
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _send(service)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert 3500 < retry_seconds(caught.value) <= 3600


@pytest.mark.service(OTP_ATTEMPTS=2, OTP_FAILURES_PER_HOUR=2)
async def test_an_address_under_attack(service: Service, relay: Relay) -> None:
    """Once strangers have spent the failures the next code is a long one, and a device with a token has its own."""
    sent = await _send(service)
    token = (await _validate(service, sent.otp_code)).device_token
    assert token
    sent = await _send(service, session="a stranger's")
    for _ in range(2):
        await _validate(service, _wrong(sent.otp_code), session="a stranger's")
    assert (await _validate(service, sent.otp_code, session="a stranger's")).result == SPENT
    long = await _send(service, session="s1")
    assert (long.code_length, long.code_is_numeric, len(long.otp_code)) == (12, False, 12)
    shown = "-".join((long.otp_code[:4], long.otp_code[4:8], long.otp_code[8:]))
    assert shown.encode() in relay.mails[-1].content
    for _ in range(20):
        assert (await _validate(service, "222222222222", session="s1")).result == WRONG
    short = await _send(service, session="s1", device_token=token)
    assert (short.code_length, short.code_is_numeric) == (6, True)
    assert (await _validate(service, short.otp_code, session="s1", device_token=token)).result == VALID
    typed = f"{long.otp_code[:4]}-{long.otp_code[4:]}".lower()
    assert (await _validate(service, typed, session="s1")).result == VALID


async def test_sessions_are_apart(service: Service) -> None:
    """A code of one session fails for another, and has attempts of its own; a revoke ends that of its session."""
    mine = await _send(service, session="mine")
    other = await _send(service, session="other")
    assert mine.challenge_id != other.challenge_id
    for _ in range(5):
        await _validate(service, _wrong(other.otp_code), session="other")
    assert (await _validate(service, other.otp_code)).result == NONE
    await service.otp.RevokeCode(otp_pb2.RevokeCodeRequest(email=ADA, session="other"))
    assert (await _validate(service, mine.otp_code, session="mine")).result == VALID


async def test_a_repeated_check_has_its_first_answer(service: Service) -> None:
    """A check with the same request id is answered as the first one, token included; a wrong one costs no attempt."""
    sent = await _send(service)
    wrong = [await _validate(service, _wrong(sent.otp_code), request_id="r-1") for _ in range(3)]
    assert {answer.attempts_left for answer in wrong} == {4}
    right = [await _validate(service, sent.otp_code, request_id="r-2") for _ in range(2)]
    assert right[0].result == VALID
    assert right[0] == right[1]
    assert (await _validate(service, sent.otp_code, request_id="r-3")).result == NONE


async def test_a_request_id_that_is_none(service: Service, subtests: pytest.Subtests) -> None:
    """A request id that is too long or not printable is refused by its name, for a code and for a check."""
    for request_id in ("x" * 129, "a\nb", "\u200e"):
        with subtests.test(request_id=request_id):
            for call in (_send(service, request_id=request_id), _validate(service, "123456", request_id=request_id)):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert bad_field(caught.value) == "request_id"


@pytest.mark.service(OTP_SENDS_PER_HOUR=2)
async def test_an_address_gets_so_many_mails(service: Service, relay: Relay) -> None:
    """More codes than the limit are refused over all purposes and sessions, with the limit's name, and mail nothing."""
    for purpose in ("a", "b"):
        await _send(service, purpose=purpose, session=purpose)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _send(service, purpose="c", session="c")
    assert quota_subject(caught.value) == "address"
    assert quota_setting(caught.value) == "OTP_SENDS_PER_HOUR"
    assert 3500 < retry_seconds(caught.value) <= 3600
    assert len(relay.mails) == 2


@pytest.mark.service(OTP_SENDS_PER_BLOCK_HOUR=2)
async def test_an_end_users_block_gets_so_many_mails(service: Service, relay: Relay) -> None:
    """The mails of one IPv4 address, or /64 of IPv6, are limited over all mailboxes, however it is written."""
    for block in (
        ("192.0.2.1", "::ffff:192.0.2.1", "::FFFF:C000:201"),
        ("2001:db8::1", "2001:db8::2", "2001:DB8:0::3"),
    ):
        for number, client_ip in enumerate(block[:2]):
            await _send(service, email=f"{number}-{block[0]}@example.org".replace(":", "-"), client_ip=client_ip)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _send(service, client_ip=block[2])
        assert quota_subject(caught.value) == "block"
        assert quota_setting(caught.value) == "OTP_SENDS_PER_BLOCK_HOUR"
        assert 3000 < retry_seconds(caught.value) <= 3900
    await _send(service, client_ip="192.0.2.2")
    assert len(relay.mails) == 5


@pytest.mark.service(OTP_SENDS_PER_HOUR=2, OTP_GMAIL_DOTS="true")
async def test_tags_share_the_limits_of_a_mailbox(service: Service, relay: Relay) -> None:
    """An address with a tag, or other dots at Gmail, gets no mail beyond the limit of its mailbox."""
    for first, second, third in (
        ("bob+1@example.org", "bob@example.org", "bob+2@example.org"),
        ("eve@gmail.com", "e.ve@gmail.com", "ev.e+1@googlemail.com"),
    ):
        await _send(service, email=first)
        await _send(service, email=second)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _send(service, email=third)
        assert quota_setting(caught.value) == "OTP_SENDS_PER_HOUR"
    assert len(relay.mails) == 4


@pytest.mark.service(OTP_SENDS_PER_CALLER_HOUR=2, LIMITS_MODE="shadow")
async def test_limits_in_shadow_refuse_nothing(service: Service, relay: Relay) -> None:
    """A limit in shadow lets each mail go, and the log says which one it would have refused."""
    for number in range(3):
        await _send(service, email=f"{number}@example.org")
    assert len(relay.mails) == 3
    await service.wait_for_log("limit-near", limit="caller", percent=50)
    await service.wait_for_log("limit-in-shadow", limit="caller", caller="anonymous")


async def test_a_field_that_is_too_long(service: Service, subtests: pytest.Subtests) -> None:
    """A session or token longer than any is refused by its name, for a code and for a check."""
    for field in ("session", "device_token"):
        with subtests.test(field=field):
            for call in (_send(service, **{field: "x" * 257}), _validate(service, "123456", **{field: "x" * 257})):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert bad_field(caught.value) == field


@pytest.mark.service(OTP_RESEND_SECONDS=30)
async def test_two_mails_are_spaced(service: Service, relay: Relay) -> None:
    """A second code within OTP_RESEND_SECONDS is RESOURCE_EXHAUSTED with RetryInfo; a success clears the wait."""
    sent = await _send(service)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _send(service)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason(caught.value) == "LIMIT_EXCEEDED"
    assert quota_subject(caught.value) == "address"
    assert 25 < retry_seconds(caught.value) <= 30
    assert len(relay.mails) == 1
    assert (await _validate(service, sent.otp_code)).result == VALID
    await _send(service)


@pytest.mark.parametrize("wait_for", [mail_pb2.WAIT_FOR_RELAY, mail_pb2.WAIT_FOR_QUEUE])
async def test_a_mail_that_is_refused_ends_no_code_of_another(
    service: Service, relay: Relay, wait_for: mail_pb2.WaitFor.ValueType
) -> None:
    """A stranger's call for a code that the relay refuses, as one mail too many, leaves the owner's code good."""
    first = await _send(service)
    assert first.mail.state == mail_pb2.Mail.STATE_RELAYED
    relay.faults = Faults(refuse_recipients={ADA: "550 5.2.1 receiving mail at a rate that prevents more"})
    again = await _send(service, wait_for=wait_for)
    settled = [mail async for mail in service.mail.WatchMail(mail_pb2.WatchMailRequest(id=again.mail.id))][-1]
    assert settled.state == mail_pb2.Mail.STATE_FAILED
    assert (await _validate(service, first.otp_code)).result == VALID


@pytest.mark.relay(refuse_recipients={ADA: "550 5.1.1 no such user"}, times=1)
@pytest.mark.service(OTP_RESEND_SECONDS=30)
async def test_a_refused_address_voids_the_code(service: Service) -> None:
    """When the relay rejects the address the answer says so, no code is live, and no wait is spent."""
    sent = await _send(service)
    assert sent.mail.state == mail_pb2.Mail.STATE_FAILED
    assert (sent.mail.recipients[0].code, sent.mail.recipients[0].enhanced_code) == (550, "5.1.1")
    assert (await _validate(service, sent.otp_code)).result == NONE
    await service.address_service.ReleaseAddress(address_pb2.ReleaseAddressRequest(email=ADA, suppression=True))
    assert (await _send(service)).mail.state == mail_pb2.Mail.STATE_RELAYED


async def test_codes_of_one_purpose_fail_for_another(service: Service) -> None:
    """Purposes are apart: each has its own code."""
    sent = await _send(service, purpose="payment")
    assert (await _validate(service, sent.otp_code)).result == NONE
    assert (await _validate(service, sent.otp_code, purpose="payment")).result == VALID


async def test_a_check_can_be_bound_to_a_challenge(service: Service) -> None:
    """The right code with another challenge's id is not valid, and no attempt is spent."""
    sent = await _send(service)
    assert (await _validate(service, sent.otp_code, challenge_id="0" * 32)).result == NONE
    assert (await _validate(service, sent.otp_code, challenge_id=sent.challenge_id)).result == VALID


async def test_revoke(service: Service) -> None:
    """A revoked code is gone; revoking what is not live succeeds."""
    sent = await _send(service)
    await service.otp.RevokeCode(otp_pb2.RevokeCodeRequest(email=ADA))
    await service.otp.RevokeCode(otp_pb2.RevokeCodeRequest(email=ADA))
    assert (await _validate(service, sent.otp_code)).result == NONE


@pytest.mark.service(OTP_RESEND_SECONDS=30)
async def test_a_repeated_request_id_sends_nothing_new(service: Service, relay: Relay) -> None:
    """A retry with the same id gets the first answer; the same id for something else is INVALID_ARGUMENT."""
    first = await _send(service, request_id="r-1")
    second = await _send(service, request_id="r-1")
    assert second == first
    assert len(relay.mails) == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _send(service, request_id="r-1", purpose="other")
    assert bad_field(caught.value) == "request_id"


async def test_the_mail_is_in_the_persons_language(service: Service, relay: Relay) -> None:
    """A locale picks the mail: de-AT has German, an unknown one the default."""
    await _send(service, locale="de-AT", purpose="a")
    await _send(service, locale="tlh", purpose="b")
    assert [parsed(mail.content)["Subject"].partition(" ")[2] for mail in relay.mails] == [
        "ist Ihr Code",
        "is your code",
    ]


async def test_bad_fields_are_named(service: Service, relay: Relay, subtests: pytest.Subtests) -> None:
    """A field out of bounds is INVALID_ARGUMENT and named, and nothing is mailed."""
    for field, value, named in (
        ("email", "", "email"),
        ("email", "a" * 250 + "@example.org", "email"),
        ("email", "ada@example.org\r\nRCPT TO:<eve@example.org>", "email"),
        ("email", "ada@example.org, eve@example.org", "email"),
        ("purpose", "Log In", "purpose"),
        ("locale", "de\nBcc: x", "locale"),
        ("variables", {"code": "123456"}, "variables"),
        ("variables", {f"v{n}": "x" for n in range(33)}, "variables"),
        ("variables", {"name": "x" * 1001}, "variables"),
        ("variables", {"name": "a\nb"}, "variables['name']"),
        ("request_id", "x" * 129, "request_id"),
        ("client_ip", "not-an-ip", "client_ip"),
        ("wait_for", 9, "wait_for"),
    ):
        with subtests.test(field=field, value=value, named=named):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _send(service, **{field: value})
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert bad_field(caught.value) == named
            assert relay.mails == []


@pytest.mark.parametrize(("field", "value"), [("code", ""), ("code", "1" * 1001), ("challenge_id", "zz")])
async def test_bad_checks_are_named(service: Service, field: str, value: str) -> None:
    """A check that can't be one is INVALID_ARGUMENT, and costs no attempt."""
    sent = await _send(service)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _validate(service, **{"code": sent.otp_code, field: value})
    assert bad_field(caught.value) == field
    assert (await _validate(service, _wrong(sent.otp_code))).attempts_left == 4


@pytest.mark.service(LOG_LEVEL="debug")
async def test_no_code_and_no_address_in_the_log(service: Service) -> None:
    """At the most talkative level the log holds neither the code, nor the password, nor the address."""
    sent = await _send(service)
    await _validate(service, _wrong(sent.otp_code))
    await _validate(service, sent.otp_code)
    await service.wait_for_log("code-checked", count=2)
    written = "\n".join(service.output)
    for secret in (sent.otp_code, "secret", ADA):
        assert secret not in written
