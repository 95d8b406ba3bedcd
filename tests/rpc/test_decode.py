"""The decoder: from a request of otpmail.v1 to a submission."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from cost import lines_run
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
    """Each field of a request has its place in the submission."""
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


async def test_a_field_left_out_has_its_default() -> None:
    """A request with a recipient alone is a submission without a ttl and without a fingerprint."""
    asked = await submission_from(mail_pb2.SendMailRequest(to=[ADA]), LIMITS)
    assert asked == Submission(draft=Draft(limits=LIMITS, to=(Address(ADA),)))


@pytest.mark.parametrize("field", ["priority", "wait_for"])
async def test_numbers_that_the_contract_lacks_are_refused(field: str) -> None:
    """A number that an enum lacks is refused with its field's name."""
    numbers: dict[str, Any] = {field: 17}
    with pytest.raises(InvalidArgument) as caught:
        await submission_from(mail_pb2.SendMailRequest(to=[ADA], **numbers), LIMITS)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"text": "x" * LARGE}, "loop"),
        ({"text": "x" * LARGE, "html": "x"}, "thread"),
        ({"attachments": [mail_pb2.Attachment(content=b"x" * (LARGE + 1))]}, "thread"),
    ],
)
async def test_a_thread_reads_a_large_request(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], where: str
) -> None:
    """A thread checks and hashes a large request, so that the loop does not wait for it."""
    places: list[str] = []
    loop_thread = threading.current_thread()

    def noting(act: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **more: Any) -> Any:
            places.append("loop" if threading.current_thread() is loop_thread else "thread")
            return act(*arguments, **more)

        return noted

    monkeypatch.setattr(decode, "Draft", noting(Draft))
    monkeypatch.setattr(decode, "fingerprint_of", noting(decode.fingerprint_of))
    await submission_from(mail_pb2.SendMailRequest(to=[ADA], request_id="r1", **fields), LIMITS)
    assert places == [where, where]


async def test_a_request_without_an_id_has_no_fingerprint() -> None:
    """A request that can't be repeated is not hashed."""
    assert (await submission_from(mail_pb2.SendMailRequest(to=[ADA], text="x"), LIMITS)).fingerprint == b""


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"to": [ADA] * 100_000}, "to"),
        ({"to": ["\0"] * 100_000}, "to"),
        ({"cc": ["\0"] * 100_000}, "cc"),
        ({"bcc": ["\0"] * 100_000}, "bcc"),
        ({"headers": {str(number): "\0" for number in range(100_000)}}, "headers"),
        ({"attachments": [mail_pb2.Attachment(filename="\0")] * 100_000}, "attachments"),
    ],
)
def test_a_list_is_read_to_its_limit(fields: dict[str, Any], wrong: str) -> None:
    """A list of any length costs no more than one that is too long by one entry, and its field is named."""
    request = mail_pb2.SendMailRequest(**{"to": [ADA], **fields})

    def read() -> None:
        with pytest.raises(InvalidArgument) as caught:
            submission_from(request, LIMITS).send(None)
        assert caught.value.field == wrong

    assert lines_run(read) < 2000


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
    """A priority that is not set is normal."""
    assert decode.priority_from(value) is priority


@pytest.mark.parametrize(
    ("value", "wait_for"),
    [
        (mail_pb2.WAIT_FOR_UNSPECIFIED, WaitFor.RELAY),
        (mail_pb2.WAIT_FOR_RELAY, WaitFor.RELAY),
        (mail_pb2.WAIT_FOR_QUEUE, WaitFor.QUEUE),
    ],
)
def test_wait_for(value: int, wait_for: WaitFor) -> None:
    """A request that sets nothing waits for the relay's reply."""
    assert decode.wait_for_from(value) is wait_for


@pytest.mark.parametrize("value", [-1, 4, 99])
def test_the_fields_refuse_numbers_that_the_contract_lacks(value: int) -> None:
    """proto3 accepts any number of an enum; the decoder refuses one that it lacks."""
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
    """A Duration is decoded in seconds; the mail service checks the ttl."""
    assert decode.ttl_from(duration) == pytest.approx(seconds)


@pytest.mark.parametrize("duration", [Duration(seconds=315_576_000_001), Duration(nanos=1_000_000_000)])
def test_a_duration_out_of_range_is_refused(duration: Duration) -> None:
    """A Duration beyond the range of duration.proto is InvalidArgument."""
    with pytest.raises(InvalidArgument, match=r"^ttl: "):
        decode.ttl_from(duration)


def test_a_fingerprint_is_the_content() -> None:
    """Equal requests have equal fingerprints in any order of their maps; any difference shows, the kind too."""
    headers = {f"X-{number}": str(number) for number in range(20)}
    one = mail_pb2.SendMailRequest(to=["a@x.org"], headers=headers)
    other = mail_pb2.SendMailRequest(to=["a@x.org"], headers=dict(reversed(headers.items())))
    assert decode.fingerprint_of(one) == decode.fingerprint_of(other)
    other.text = "x"
    assert decode.fingerprint_of(one) != decode.fingerprint_of(other)
    empty = {decode.fingerprint_of(kind()) for kind in (mail_pb2.GetMailRequest, otp_pb2.SendCodeRequest)}
    assert len(empty) == 2
