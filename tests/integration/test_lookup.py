"""Callers find their mails by id or request id, with labels and the time of the next attempt."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from calls import bad_field, parsed
from otpmail.v1 import mail_pb2, otp_pb2

if TYPE_CHECKING:
    from relay import Relay
    from service import Service

ADA = "ada@example.org"
LABELS = {"tenant": "t-42", "campaign": "Frühling"}
RELAYED, QUEUED, CANCELLED = mail_pb2.Mail.STATE_RELAYED, mail_pb2.Mail.STATE_QUEUED, mail_pb2.Mail.STATE_CANCELLED


def _request(request_id: str = "", **fields: object) -> mail_pb2.SendMailRequest:
    given: dict[str, object] = {"to": [ADA], "subject": "s", "text": "t", "request_id": request_id, **fields}
    return mail_pb2.SendMailRequest(**given)  # type: ignore[arg-type]


async def test_labels_come_back_and_are_not_mailed(service: Service, relay: Relay) -> None:
    """Labels stand in the answer, in results of a stream, in GetMail and WatchMail, and nowhere in the mail."""
    sent = (await service.mail.SendMail(_request("r1", labels=LABELS))).mail
    batch = mail_pb2.SendMailsRequest(mails=[_request("r2", labels=LABELS), _request("r3")])
    results = [one async for answer in service.mail.SendMails(iter([batch])) for one in answer.results]
    told = {result.request_id: dict(result.mail.labels) for result in results}
    assert (dict(sent.labels), told) == (LABELS, {"r2": LABELS, "r3": {}})
    assert await service.mail.GetMail(mail_pb2.GetMailRequest(id=sent.id)) == sent
    assert [one async for one in service.mail.WatchMail(mail_pb2.WatchMailRequest(request_id="r1"))] == [sent]
    assert len({tuple(parsed(mail.content).keys()) for mail in relay.mails}) == 1
    assert not [name for mail in relay.mails for name in (*LABELS, "t-42") if name in mail.content.decode()]


async def test_labels_are_part_of_a_request(service: Service) -> None:
    """A repeated request id with other labels is refused, with the same ones it gets the first answer."""
    sent = await service.mail.SendMail(_request("r1", labels=LABELS))
    assert await service.mail.SendMail(_request("r1", labels=dict(reversed(LABELS.items())))) == sent
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.mail.SendMail(_request("r1", labels={**LABELS, "tenant": "t-43"}))
    assert bad_field(caught.value) == "request_id"


async def test_wrong_labels_are_named(service: Service, relay: Relay) -> None:
    """A label that is not good is INVALID_ARGUMENT with its name, of a mail and of a code, and nothing is sent."""
    code = otp_pb2.SendCodeRequest(email=ADA, labels={"x": "\n"})
    for call in (service.mail.SendMail(_request(labels={"x": "\n"})), service.otp.SendCode(code)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert (caught.value.code(), bad_field(caught.value)) == (grpc.StatusCode.INVALID_ARGUMENT, "labels['x']")
    assert relay.mails == []


async def test_a_code_has_labels_and_says_what_is_typed(service: Service, relay: Relay) -> None:
    """SendCode says how long the code is and that it has digits only, and its mail has the caller's labels."""
    request = otp_pb2.SendCodeRequest(email=ADA, request_id="c1", labels=LABELS)
    sent = await service.otp.SendCode(request)
    assert (sent.code_length, sent.code_is_numeric, sent.otp_code) == (6, True, "")
    assert dict(sent.mail.labels) == LABELS
    assert await service.mail.GetMail(mail_pb2.GetMailRequest(request_id="c1")) == sent.mail
    assert len(relay.mails) == 1


@pytest.mark.service(OTP_DIGITS=8, OTP_RETURN_CODE=True)
async def test_the_length_of_a_longer_code(service: Service) -> None:
    """The length of a code is that of the code itself."""
    sent = await service.otp.SendCode(otp_pb2.SendCodeRequest(email=ADA))
    assert sent.code_length == len(sent.otp_code) == 8


@pytest.mark.relay(final_reply="451 4.3.0 later", times=1)
async def test_a_deferred_mail_says_when_it_is_sent_again(service: Service) -> None:
    """The time of the next attempt is in the future while the mail is deferred, and unset once it is relayed."""
    began = time.time()
    sent = (await service.mail.SendMail(_request("r1", wait_for=mail_pb2.WAIT_FOR_QUEUE))).mail
    assert not sent.HasField("next_attempt_time")
    seen = [mail async for mail in service.mail.WatchMail(mail_pb2.WatchMailRequest(request_id="r1"))]
    (deferred,) = [mail for mail in seen if mail.HasField("next_attempt_time")]
    assert (deferred.state, deferred.attempts, deferred.recipients[0].code) == (QUEUED, 1, 451)
    assert began < deferred.next_attempt_time.ToMilliseconds() / 1000 < began + 60
    assert seen[-1].state == RELAYED


@pytest.mark.relay(final_reply="451 4.3.0 later")
async def test_a_mail_is_cancelled_by_its_request_id(service: Service, relay: Relay) -> None:
    """A caller that has lost the answer cancels its mail by request id, and each later look-up finds it so."""
    await service.mail.SendMail(_request("r1", wait_for=mail_pb2.WAIT_FOR_QUEUE))
    async for mail in service.mail.WatchMail(mail_pb2.WatchMailRequest(request_id="r1")):
        if mail.HasField("next_attempt_time"):
            break
    cancelled = await service.mail.CancelMail(mail_pb2.CancelMailRequest(request_id="r1"))
    assert (cancelled.state, cancelled.HasField("next_attempt_time")) == (CANCELLED, False)
    assert await service.mail.GetMail(mail_pb2.GetMailRequest(request_id="r1")) == cancelled
    assert relay.mails == []


async def test_a_mail_is_named_by_exactly_one_of_two(service: Service, subtests: pytest.Subtests) -> None:
    """GetMail, WatchMail and CancelMail refuse neither and both of id and request_id, and name the two."""
    for names in ({}, {"id": "m1", "request_id": "r1"}):
        with subtests.test(names=names):
            mails = service.mail
            calls: list[Any] = [
                mails.GetMail(mail_pb2.GetMailRequest(**names)),
                mails.CancelMail(mail_pb2.CancelMailRequest(**names)),
                anext(aiter(mails.WatchMail(mail_pb2.WatchMailRequest(**names)))),
            ]
            for call in calls:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert caught.value.details() == "id: exactly one of id and request_id must be given"


async def test_a_request_id_that_nobody_used(service: Service) -> None:
    """A request id without a mail is NOT_FOUND."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.mail.GetMail(mail_pb2.GetMailRequest(request_id="nope"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
