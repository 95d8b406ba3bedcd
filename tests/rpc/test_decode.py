"""otpmail.v1.MailService: from a request to an order."""

import threading
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from drafts import ADA, LIMITS
from otpmail.address import Address
from otpmail.compose.draft import LARGE, Attachment, Draft
from otpmail.errors import InvalidArgument
from otpmail.mail.submission import Submission
from otpmail.model import Priority, WaitFor
from otpmail.rpc import decode
from otpmail.rpc.decode import submission_from
from otpmail.v1 import mail_pb2, otp_pb2


async def test_every_field_has_its_place() -> None:
    """Nothing of a request is lost on its way to the use case."""
    request = mail_pb2.SendMailRequest(
        to=["a@x.org", "B <b@x.org>"],
        cc=["c@x.org"],
        bcc=["d@x.org"],
        subject="s",
        text="t",
        html="h",
        reply_to="r@x.org",
        headers={"X-A": "1"},
        attachments=[mail_pb2.Attachment(filename="f", content_type="a/b", content=b"c", content_id="i")],
        priority=mail_pb2.PRIORITY_BULK,
        wait_for=mail_pb2.WAIT_FOR_QUEUE,
        ttl=Duration(seconds=5),
        request_id="r1",
        **{"from": "F <f@x.org>"},
    )
    assert await submission_from(request, LIMITS) == Submission(
        draft=Draft(
            limits=LIMITS,
            to=(Address("a@x.org"), Address("b@x.org", "B")),
            cc=(Address("c@x.org"),),
            bcc=(Address("d@x.org"),),
            subject="s",
            text="t",
            html="h",
            sender=Address("f@x.org", "F"),
            reply_to=Address("r@x.org"),
            headers={"X-A": "1"},
            attachments=(Attachment("f", "a/b", b"c", "i"),),
        ),
        priority=Priority.BULK,
        wait_for=WaitFor.QUEUE,
        ttl=5.0,
        request_id="r1",
        fingerprint=decode.fingerprint_of(request),
    )


async def test_what_is_left_out_is_the_default() -> None:
    """An empty request is an order for nothing in particular, without a ttl and without a fingerprint."""
    asked = await submission_from(mail_pb2.SendMailRequest(to=[ADA]), LIMITS)
    assert asked == Submission(draft=Draft(limits=LIMITS, to=(Address(ADA),)))


@pytest.mark.parametrize("field", ["priority", "wait_for"])
async def test_numbers_that_the_contract_lacks_are_refused(field: str) -> None:
    """Each by its field's name."""
    numbers: dict[str, Any] = {field: 17}
    with pytest.raises(InvalidArgument) as caught:
        await submission_from(mail_pb2.SendMailRequest(to=[ADA], **numbers), LIMITS)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("length", "request_id", "where"),
    [(10, "r1", "loop"), (LARGE + 1, "r1", "thread"), (LARGE + 1, "", "nowhere")],
)
async def test_the_loop_does_not_wait_for_a_large_fingerprint(
    monkeypatch: pytest.MonkeyPatch, length: int, request_id: str, where: str
) -> None:
    """A large request is hashed in a thread, and only where a repeated one is to be told."""
    threads: list[threading.Thread] = []
    fingerprint = decode.fingerprint_of

    def noted(request: Message) -> bytes:
        threads.append(threading.current_thread())
        return fingerprint(request)

    monkeypatch.setattr(decode, "fingerprint_of", noted)
    request = mail_pb2.SendMailRequest(to=[ADA], text="x" * length, request_id=request_id)
    order = await submission_from(request, LIMITS)
    expected = {"loop": [True], "thread": [False], "nowhere": []}
    assert [thread is threading.current_thread() for thread in threads] == expected[where]
    assert bool(order.fingerprint) is bool(request_id)


@pytest.mark.parametrize(
    ("value", "priority"),
    [
        (mail_pb2.PRIORITY_UNSPECIFIED, Priority.NORMAL),
        (mail_pb2.PRIORITY_NORMAL, Priority.NORMAL),
        (mail_pb2.PRIORITY_BULK, Priority.BULK),
        (mail_pb2.PRIORITY_URGENT, Priority.URGENT),
    ],
)
def test_priorities(value: int, priority: Priority) -> None:
    """Unset is normal."""
    assert decode.priority_from(value) is priority


@pytest.mark.parametrize(
    ("value", "wait_for"),
    [
        (mail_pb2.WAIT_FOR_UNSPECIFIED, WaitFor.RELAY),
        (mail_pb2.WAIT_FOR_RELAY, WaitFor.RELAY),
        (mail_pb2.WAIT_FOR_QUEUE, WaitFor.QUEUE),
    ],
)
def test_what_is_waited_for(value: int, wait_for: WaitFor) -> None:
    """Unset is the relay's word."""
    assert decode.wait_for_from(value) is wait_for


@pytest.mark.parametrize("value", [-1, 4, 99])
def test_the_fields_refuse_numbers_that_the_contract_lacks(value: int) -> None:
    """proto3 lets any number through: here it is InvalidArgument with the field's name."""
    with pytest.raises(InvalidArgument, match=r"^priority: "):
        decode.priority_from(value)
    with pytest.raises(InvalidArgument, match=r"^wait_for: "):
        decode.wait_for_from(value)


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        (Duration(), 0.0),
        (Duration(seconds=90), 90.0),
        (Duration(seconds=1, nanos=500_000_000), 1.5),
        (Duration(seconds=-1), -1.0),
    ],
)
def test_durations(duration: Duration, seconds: float) -> None:
    """In seconds; whether that is a good ttl is the mail service's to say."""
    assert decode.ttl_from(duration) == pytest.approx(seconds)


@pytest.mark.parametrize("duration", [Duration(seconds=315_576_000_001), Duration(nanos=1_000_000_000)])
def test_what_is_no_duration_is_refused(duration: Duration) -> None:
    """Out of duration.proto's own range."""
    with pytest.raises(InvalidArgument, match=r"^ttl: "):
        decode.ttl_from(duration)


def test_a_fingerprint_is_the_content() -> None:
    """Equal requests have equal ones, whatever order their maps were filled in; any difference shows, the kind too."""
    headers = {f"X-{number}": str(number) for number in range(20)}
    one = mail_pb2.SendMailRequest(to=["a@x.org"], headers=headers)
    other = mail_pb2.SendMailRequest(to=["a@x.org"], headers=dict(reversed(headers.items())))
    assert decode.fingerprint_of(one) == decode.fingerprint_of(other)
    other.text = "x"
    assert decode.fingerprint_of(one) != decode.fingerprint_of(other)
    empty = {decode.fingerprint_of(kind()) for kind in (mail_pb2.GetMailRequest, otp_pb2.SendCodeRequest)}
    assert len(empty) == 2
