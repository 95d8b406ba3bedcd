"""Calls of both clients against a service whose answers a test writes down."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, QuotaFailure

from client.scripted import Failure, Scripted
from otpmail import client as errors
from otpmail.client import Client, Retries, State, SyncClient
from otpmail.v1 import mail_pb2, otp_pb2
from ports import HOST, ReservedPort

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_DOWN = Failure(grpc.StatusCode.UNAVAILABLE, "the relay is down", reason="RELAY_DOWN", retry_after=1)
_VALID = otp_pb2.ValidateCodeResponse(result=otp_pb2.ValidateCodeResponse.RESULT_VALID, device_token="device")
_SENT = otp_pb2.SendCodeResponse(challenge_id="c", mail=mail_pb2.Mail(id="m", state=mail_pb2.Mail.STATE_RELAYED))


def _both(service: Scripted, waits: list[float], **options: Any) -> Callable[..., Awaitable[Any]]:
    """Return what calls a method of the client of the test's parameter."""
    kind = options.pop("kind")

    async def call(name: str, *args: Any, **more: Any) -> Any:
        """Call a method, in a thread if it blocks."""
        if kind == "async":

            async def sleep(seconds: float) -> None:
                """Note a wait."""
                waits.append(seconds)

            async with Client(service.address, sleep=sleep, **options) as client:
                return await getattr(client, name)(*args, **more)
        with SyncClient(service.address, sleep=waits.append, **options) as blocking:
            return await asyncio.to_thread(getattr(blocking, name), *args, **more)

    return call


@pytest.fixture(params=["async", "sync"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the clients a test uses."""
    return str(request.param)


async def test_a_call_is_repeated_with_its_request_id(kind: str) -> None:
    """After UNAVAILABLE the same request, with the id that the client made, is sent until the service answers."""
    waits: list[float] = []
    async with Scripted(Failure(grpc.StatusCode.UNAVAILABLE, "away"), _DOWN, _SENT) as service:
        sent = await _both(service, waits, kind=kind)("send_code", "ada@example.org", "reset", locale="de")
    assert (sent.challenge_id, sent.mail.state) == ("c", State.RELAYED)
    first, *others = service.requests
    assert first.request_id
    assert others == [first, first]
    assert (first.email, first.purpose, first.locale) == ("ada@example.org", "reset", "de")
    assert 0.05 <= waits[0] <= 0.15  # backoff with jitter
    assert 1.0 <= waits[1] <= 1.25  # RetryInfo


async def test_a_call_is_made_so_often_at_most(kind: str) -> None:
    """After the last attempt the error of the service is raised, with its time to wait."""
    async with Scripted(*[_DOWN] * 3) as service:
        with pytest.raises(errors.RelayDown, match="the relay is down") as caught:
            await _both(service, [], kind=kind, retries=Retries(attempts=3))("send_mail", "ada@example.org")
    assert caught.value.retry_after == 1
    assert isinstance(caught.value, ConnectionError)
    assert service.answers == []
    assert "RpcError" not in "".join(traceback.format_exception(caught.value))


async def test_a_long_wait_is_left_to_the_caller(kind: str) -> None:
    """Where the service asks for a longer wait than a call may take, the call raises at once."""
    waits: list[float] = []
    down = Failure(grpc.StatusCode.UNAVAILABLE, "down", reason="RELAY_DOWN", retry_after=30)
    async with Scripted(down, down) as service:
        with pytest.raises(errors.RelayDown) as caught:
            await _both(service, waits, kind=kind)("send_code", "ada@example.org")
    assert (caught.value.retry_after, waits, len(service.requests)) == (30, [], 1)


async def test_what_is_not_safe_is_not_repeated(kind: str) -> None:
    """A call that would do more the second time is made once."""
    async with Scripted(_DOWN, _DOWN) as service:
        call = _both(service, [], kind=kind)
        for name in ("cancel_mail", "retry_mail"):
            with pytest.raises(errors.Unavailable):
                await call(name, "m")
    assert len(service.requests) == 2


async def test_no_other_error_is_repeated(kind: str) -> None:
    """An error that a repetition would only repeat is raised at once."""
    async with Scripted(Failure(grpc.StatusCode.INTERNAL, "boom", reason="INTERNAL"), _SENT) as service:
        with pytest.raises(errors.ServiceError, match="boom"):
            await _both(service, [], kind=kind)("send_code", "ada@example.org")
    assert len(service.requests) == 1


async def test_the_deadline_is_of_all_attempts(kind: str) -> None:
    """The service learns how much time is left; a call without an answer in time raises TimedOut."""
    async with Scripted(None, _VALID, _SENT) as service:
        call = _both(service, [], kind=kind, timeout=8.0)
        with pytest.raises(errors.TimedOut) as caught:
            await call("check_code", "ada@example.org", "123456", timeout=3.0)  # a busy machine connects in this time
        assert isinstance(caught.value, TimeoutError)
        await call("check_code", "ada@example.org", "123456")
        await _both(service, [], kind=kind)("send_code", "ada@example.org")
    short, own, usual = (left or 0 for left in service.left)
    assert short <= 3.05
    assert 5 < own < 8.1
    assert 60 < usual < 75.1  # more than MAIL_WAIT_SECONDS


async def test_the_token_is_sent_and_not_shown(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token comes from the argument, else OTPMAIL_TOKEN at each call; no text of the client has it."""
    monkeypatch.setenv("OTPMAIL_TOKEN", "from-the-environment")
    async with Scripted(_VALID, _VALID, Failure(grpc.StatusCode.UNAUTHENTICATED, "unknown")) as service:
        await _both(service, [], kind=kind)("check_code", "ada@example.org", "123456")
        call = _both(service, [], kind=kind, token="of-the-argument")
        await call("check_code", "ada@example.org", "123456")
        with pytest.raises(errors.Unauthenticated, match="OTPMAIL_TOKEN") as caught:
            await call("check_code", "ada@example.org", "123456")
    assert [each["authorization"] for each in service.metadata[:2]] == [
        "Bearer from-the-environment",
        "Bearer of-the-argument",
    ]
    shown = repr(caught.value) + repr(Client(token="of-the-argument")) + repr(SyncClient(token="of-the-argument"))
    assert "of-the-argument" not in shown


def _mail(state: mail_pb2.Mail.State.ValueType, *recipients: mail_pb2.RecipientResult) -> otp_pb2.SendCodeResponse:
    return otp_pb2.SendCodeResponse(mail=mail_pb2.Mail(id="m", state=state, recipients=recipients))


_ADA, _BOB = "ada@example.org", "bob@example.org"
_UNTIL = Timestamp(seconds=1_800_000_000)
_REJECTED = mail_pb2.RecipientResult(address=_ADA, code=550, enhanced_code="5.1.1", reply="no such user")
_DEFERRED = mail_pb2.RecipientResult(address=_ADA, code=452, enhanced_code="4.2.2", reply="full")
_BROKEN = mail_pb2.RecipientResult(address=_ADA, reply="the relay said: 421 bye")
_KEPT = mail_pb2.Suppression(reason="550 5.1.1", until=_UNTIL, scope=mail_pb2.Suppression.SCOPE_ALL)
_OUTCOMES = [
    (_mail(mail_pb2.Mail.STATE_FAILED, _REJECTED), errors.Refused, "ada@example.org: 550 5.1.1 no such user"),
    (
        _mail(mail_pb2.Mail.STATE_FAILED, mail_pb2.RecipientResult(address=_ADA, suppression=_KEPT)),
        errors.Suppressed,
        "until 2027-01-15 08:00 UTC: 550 5.1.1",
    ),
    (_mail(mail_pb2.Mail.STATE_FAILED), errors.NotSent, "not sent$"),
    (
        _mail(mail_pb2.Mail.STATE_PARTIAL, _REJECTED, mail_pb2.RecipientResult(address=_BOB, code=250)),
        errors.PartlySent,
        "not to ada@example.org$",
    ),
    (
        _mail(mail_pb2.Mail.STATE_FAILED, _DEFERRED),
        errors.NotSent,
        "not sent; the relay said: 452 4.2.2 full$",
    ),
    (_mail(mail_pb2.Mail.STATE_FAILED, _BROKEN), errors.NotSent, "not sent; the relay said: 421 bye$"),
    (_mail(mail_pb2.Mail.STATE_EXPIRED), errors.Expired, "in its time$"),
    (_mail(mail_pb2.Mail.STATE_EXPIRED, _DEFERRED), errors.Expired, "in its time; the relay said: 452 "),
    (_mail(mail_pb2.Mail.STATE_CANCELLED), errors.Cancelled, "cancelled"),
    (_mail(mail_pb2.Mail.STATE_UNCERTAIN), errors.Uncertain, "may arrive"),
]


@pytest.mark.parametrize(("answer", "error", "words"), _OUTCOMES, ids=[case[1].__name__ for case in _OUTCOMES])
async def test_the_outcome_of_a_mail_is_raised(
    kind: str, answer: otp_pb2.SendCodeResponse, error: type[errors.NotSent], words: str
) -> None:
    """A mail that did not reach everyone raises how it ended, unless the caller asks for the answer."""
    async with Scripted(answer, answer) as service:
        call = _both(service, [], kind=kind)
        with pytest.raises(error, match=words) as caught:
            await call("send_code", _ADA)
        assert caught.value.mail.id == "m"
        assert (await call("send_code", _ADA, raise_outcome=False)).mail == caught.value.mail


async def test_the_words_of_a_refusal(kind: str) -> None:
    """`Refused` has the relay's reply, `Suppressed` the end of the suppression."""
    async with Scripted(*(case[0] for case in _OUTCOMES[:2])) as service:
        call = _both(service, [], kind=kind)
        with pytest.raises(errors.Refused) as refused:
            await call("send_code", _ADA)
        with pytest.raises(errors.Suppressed) as suppressed:
            await call("send_code", _ADA)
    assert (refused.value.code, refused.value.enhanced_code, refused.value.reply) == (550, "5.1.1", "no such user")
    assert suppressed.value.until is not None
    assert suppressed.value.until.timestamp() == _UNTIL.seconds


@pytest.mark.parametrize("state", [mail_pb2.Mail.STATE_QUEUED, mail_pb2.Mail.STATE_SENDING])
async def test_a_mail_under_way_is_no_error(kind: str, state: mail_pb2.Mail.State.ValueType) -> None:
    """A mail that has not settled is returned."""
    async with Scripted(_mail(state)) as service:
        assert not (await _both(service, [], kind=kind)("send_code", _ADA)).mail.state.is_final


_CHECKS = [
    (otp_pb2.ValidateCodeResponse.RESULT_WRONG_CODE, errors.WrongCode),
    (otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE, errors.NoLiveCode),
    (otp_pb2.ValidateCodeResponse.RESULT_TOO_MANY_ATTEMPTS, errors.TooManyAttempts),
]


@pytest.mark.parametrize(("result", "error"), _CHECKS)
async def test_a_code_that_is_not_valid_is_raised(
    kind: str, result: otp_pb2.ValidateCodeResponse.Result.ValueType, error: type[errors.NotValid]
) -> None:
    """A code that is not valid raises why, unless the caller asks for the answer, which is false then."""
    answer = otp_pb2.ValidateCodeResponse(result=result, attempts_left=3)
    async with Scripted(answer, answer, _VALID) as service:
        call = _both(service, [], kind=kind)
        with pytest.raises(error) as caught:
            await call("check_code", _ADA, "123456")
        assert getattr(caught.value, "attempts_left", 3) == 3
        assert not await call("check_code", _ADA, "123456", raise_outcome=False)
        checked = await call("check_code", _ADA, "123456", challenge_id="c")
    assert checked
    assert checked.device_token == "device"
    assert "device'" not in repr(checked)
    assert service.requests[-1].challenge_id == "c"


async def test_a_limit_says_when(kind: str) -> None:
    """`TooSoon` has the time to wait and the setting that limits; a full queue is `Busy`, and is tried again."""
    quota = QuotaFailure(violations=[QuotaFailure.Violation(subject="address", quota_id="OTP_RESEND_SECONDS")])
    limit = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "wait", quota, reason="LIMIT_EXCEEDED", retry_after=42)
    full = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", reason="QUEUE_FULL", retry_after=1)
    waits: list[float] = []
    async with Scripted(limit, full, _SENT) as service:
        call = _both(service, waits, kind=kind)
        with pytest.raises(errors.TooSoon) as caught:
            await call("send_code", _ADA)
        await call("send_code", _ADA)
    assert (caught.value.retry_after, caught.value.limit) == (42, "OTP_RESEND_SECONDS")
    assert str(caught.value) == "wait; try again in 42 s"
    assert caught.value.http_status == 429
    assert len(waits) == 1


async def test_a_wrong_field_is_named(kind: str) -> None:
    """`InvalidRequest` is a ValueError that names the field."""
    bad = BadRequest(field_violations=[BadRequest.FieldViolation(field="email", description="is empty")])
    failure = Failure(grpc.StatusCode.INVALID_ARGUMENT, "email: is empty", bad, reason="INVALID_ARGUMENT")
    async with Scripted(failure) as service:
        with pytest.raises(errors.InvalidRequest, match="email: is empty") as caught:
            await _both(service, [], kind=kind)("send_code", "")
    assert (caught.value.field, caught.value.description) == ("email", "is empty")
    assert isinstance(caught.value, ValueError)


async def test_no_service_answers(kind: str) -> None:
    """Without a service the error has its address, after the attempts."""
    service, waits = Scripted(), list[float]()
    with ReservedPort() as held:
        service.address = f"{HOST}:{held.port}"
        with pytest.raises(errors.Unreachable, match=f"no service answers on {service.address}; start one .+ server="):
            await _both(service, waits, kind=kind, retries=Retries(attempts=3))("check_code", _ADA, "123456")
    assert len(waits) == 2


def test_the_clients_are_twins() -> None:
    """Both clients have the same methods with the same parameters, and say what each does."""
    late = " | collections.abc.AsyncIterable[otpmail.client.values.OutgoingMail]"  # which only one can wait for

    def methods(kind: type) -> dict[str, str]:
        """Return the public methods and their signatures."""
        found = {name: value for name, value in vars(kind).items() if not name.startswith("_")}
        assert all(inspect.getdoc(value) for value in found.values())
        return {
            name: str(inspect.signature(value)).partition(" -> ")[0].replace(late, "")
            for name, value in found.items()
            if name != "run"
        }

    assert methods(Client) == methods(SyncClient)
    assert methods(Client)["revoke_code"].startswith("(self, /, email: str, purpose: str = '', *, challenge_id: str")
