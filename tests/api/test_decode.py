"""The decoder: from a request of otpmail.v1 to a submission."""

from collections.abc import Coroutine
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

import octets as wire
from cost import lines_run
from counting import CountingCooperator
from drafts import ADA, LIMITS
from otpmail.address import Address
from otpmail.api import decode
from otpmail.api.decode import submission_from
from otpmail.api.wire import read_fields
from otpmail.compose.attachment import Attachment
from otpmail.compose.draft import LARGE, Draft
from otpmail.cooperate import Cooperator
from otpmail.errors import InvalidArgument
from otpmail.mail.submission import Submission
from otpmail.model import Priority, WaitFor
from otpmail.v1 import mail_pb2, otp_pb2


def _submission(request: mail_pb2.SendMailRequest) -> Coroutine[Any, None, Submission]:
    return submission_from(request, LIMITS, Cooperator())


async def test_every_field_has_its_place() -> None:
    """Each field of a request has its place in the submission."""
    request = mail_pb2.SendMailRequest(
        to=["a@x.org", "B <b@x.org>"],
        cc=["c@x.org"],
        bcc=["d@x.org"],
        subject="s",
        text="t",
        html="h",
        reply_to=["r@x.org", "S <s@x.org>"],
        headers=[mail_pb2.Header(name="X-A", value="1"), mail_pb2.Header(name="X-A", value="2")],
        attachments=[
            mail_pb2.Attachment(filename="f", content_type="a/b", content=b"c", content_id="i"),
            mail_pb2.Attachment(filename="g", content_type="a/b; c=d", content=b"e", alternative=True),
        ],
        priority=mail_pb2.PRIORITY_BULK,
        wait_for=mail_pb2.WAIT_FOR_QUEUE,
        ttl=Duration(seconds=5),
        request_id="r1",
        return_path="<bounces+ada=x.org@x.org>",
        sender="T <t@x.org>",
        message_id="<m1@x.org>",
        labels={"tenant": "t1", "campaign": "c1"},
    )
    setattr(request, "from", "F <f@x.org>")  # a keyword in Python
    assert await _submission(request) == Submission(
        draft=Draft(
            limits=LIMITS,
            to=(Address("a@x.org"), Address("b@x.org", "B")),
            cc=(Address("c@x.org"),),
            bcc=(Address("d@x.org"),),
            subject="s",
            text="t",
            html="h",
            from_=Address("f@x.org", "F"),
            sender=Address("t@x.org", "T"),
            return_path="bounces+ada=x.org@x.org",
            reply_to=(Address("r@x.org"), Address("s@x.org", "S")),
            message_id="m1@x.org",
            headers=(("X-A", "1"), ("X-A", "2")),
            attachments=(Attachment("f", "a/b", b"c", "i"), Attachment("g", "a/b; c=d", b"e", alternative=True)),
        ),
        priority=Priority.BULK,
        wait_for=WaitFor.QUEUE,
        ttl=5.0,
        request_id="r1",
        fingerprint=decode.fingerprint_of(request),
        labels=(("campaign", "c1"), ("tenant", "t1")),
    )


async def test_a_usual_mail_is_decoded_as_any_other() -> None:
    """A mail with none of the rarer fields has the draft that its fields have with one of them, but for that one."""
    usual: dict[str, Any] = {
        "to": ["a@x.org", "B <b@x.org>"],
        "subject": "s",
        "text": "t",
        "html": "h",
        "request_id": "r",
    }
    draft = (await _submission(mail_pb2.SendMailRequest(**usual))).draft
    with_reply_to = (await _submission(mail_pb2.SendMailRequest(**usual, reply_to=["r@x.org"]))).draft
    assert draft == replace(with_reply_to, reply_to=(), limits=LIMITS, bodies_checked=False)


async def test_octets_of_an_earlier_client() -> None:
    """The octets of a client that knows one reply_to and a map of headers mean what they meant."""
    header = wire.text(1, b"X-A") + wire.text(2, b"1")
    sent = wire.text(1, b"a@x.org") + wire.text(8, b"r@x.org") + wire.text(9, header)
    draft = (await _submission(mail_pb2.SendMailRequest.FromString(sent))).draft
    assert (draft.reply_to, draft.headers) == ((Address("r@x.org"),), (("X-A", "1"),))


@pytest.mark.parametrize(
    ("given", "return_path"),
    [
        ("", None),
        ("<>", ""),
        (" <>\t", ""),
        ("b@x.org", "b@x.org"),
        ("<b@x.org>", "b@x.org"),
        (" b@x.org ", "b@x.org"),
        ("<>\u200b", ""),
    ],
)
async def test_return_paths(given: str, return_path: str | None) -> None:
    """A return path may stand in angle brackets; an empty pair of them is the null return path."""
    request = mail_pb2.SendMailRequest(to=[ADA], return_path=given)
    assert (await _submission(request)).draft.return_path == return_path


@pytest.mark.parametrize(
    "given", ["B <b@x.org>", '"" <b@x.org', "< >", "<b@x.org> <c@x.org>", "<b@x.org", "\n", "@a:b@x.org"]
)
async def test_what_is_no_return_path(given: str) -> None:
    """A name, a route, several addresses or none are refused in the field's name."""
    with pytest.raises(InvalidArgument, match=r"^return_path: "):
        await _submission(mail_pb2.SendMailRequest(to=[ADA], return_path=given))


@pytest.mark.parametrize("given", ["<a@b>", "a@b", " <a@b> "])
async def test_message_ids(given: str) -> None:
    """A message id may stand in angle brackets."""
    assert (await _submission(mail_pb2.SendMailRequest(to=[ADA], message_id=given))).draft.message_id == "a@b"


@pytest.mark.parametrize("given", ["<>", " ", "<<a@b>>", "<a@b", "a@b>", "<a@b> <c@d>", "< a@b >", "a"])
async def test_what_is_no_message_id(given: str) -> None:
    """A text without an id, or with half a pair of brackets, is refused rather than taken for none."""
    with pytest.raises(InvalidArgument, match=r"^message_id: "):
        await _submission(mail_pb2.SendMailRequest(to=[ADA], message_id=given))


async def test_a_field_left_out_has_its_default() -> None:
    """A request with a recipient alone is a submission without a ttl and without a fingerprint."""
    asked = await _submission(mail_pb2.SendMailRequest(to=[ADA]))
    assert asked == Submission(draft=Draft(limits=LIMITS, to=(Address(ADA),)))


@pytest.mark.parametrize("field", ["priority", "wait_for"])
async def test_numbers_that_the_contract_lacks_are_refused(field: str) -> None:
    """A number that an enum lacks is refused with its field's name."""
    numbers: dict[str, Any] = {field: 17}
    with pytest.raises(InvalidArgument) as caught:
        await _submission(mail_pb2.SendMailRequest(to=[ADA], **numbers))
    assert caught.value.field == field


_IN_OTHER_LETTERS = [f"p@bücher{number}.example" for number in range(11)]


@pytest.mark.parametrize(
    ("fields", "least"),
    [
        ({"text": "x" * LARGE}, 0),
        ({"to": [ADA] * 100}, 0),
        ({"to": _IN_OTHER_LETTERS[:10]}, 0),
        ({"text": "x" * LARGE, "html": "x"}, 3),
        ({"text": "x" * (1 << 20)}, 16),
        ({"attachments": [mail_pb2.Attachment(content=b"x" * (LARGE + 1))]}, 3),
        ({"to": _IN_OTHER_LETTERS}, 11),
        ({"to": [ADA], "cc": _IN_OTHER_LETTERS[:5], "bcc": _IN_OTHER_LETTERS[5:]}, 11),
    ],
)
async def test_what_takes_long_is_read_in_steps(fields: dict[str, Any], least: int) -> None:
    """A large request, and one with many addresses in other letters, is read in steps; others in one go."""
    cooperator = CountingCooperator()
    request = mail_pb2.SendMailRequest(**{"to": [ADA], "request_id": "r1", **fields})
    submission = await submission_from(request, LIMITS, cooperator)
    assert len(submission.draft.recipients) == len({*request.to, *request.cc, *request.bcc})
    assert len(cooperator.steps) == (least > 0)
    assert sum(cooperator.steps) >= least


@pytest.mark.parametrize("name", ["text", "html"])
async def test_a_large_body_is_checked(name: str) -> None:
    """A control character anywhere in a large body is refused in its field's name."""
    request = mail_pb2.SendMailRequest(to=[ADA], **{name: "x" * (LARGE * 3) + "\0" + "x"})  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=f"^{name}: holds the control character U\\+0000$"):
        await _submission(request)


async def test_a_request_without_an_id_has_no_fingerprint() -> None:
    """A request that can't be repeated is not hashed."""
    assert (await _submission(mail_pb2.SendMailRequest(to=[ADA], text="x"))).fingerprint == b""


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"to": [ADA] * 100_000}, "to"),
        ({"to": ["\0"] * 100_000}, "to"),
        ({"cc": ["\0"] * 100_000}, "cc"),
        ({"bcc": ["\0"] * 100_000}, "bcc"),
        ({"reply_to": ["\0"] * 100_000}, "reply_to[0]"),
        ({"reply_to": [ADA] * 100_000}, "reply_to"),
        ({"headers": [mail_pb2.Header(name="\0")] * 100_000}, "headers"),
        ({"labels": {str(number): "\0" for number in range(100_000)}}, "labels"),
        ({"attachments": [mail_pb2.Attachment(filename="\0")] * 100_000}, "attachments"),
    ],
)
def test_a_list_is_read_to_its_limit(fields: dict[str, Any], wrong: str) -> None:
    """A list of any length costs no more than one that is too long by one entry, and its field is named."""
    request = mail_pb2.SendMailRequest(**{"to": [ADA], **fields})

    def read() -> None:
        with pytest.raises(InvalidArgument) as caught:
            _submission(request).send(None)
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


@pytest.mark.parametrize(
    "duration", [Duration(seconds=315_576_000_001), Duration(nanos=1_000_000_000), Duration(seconds=1, nanos=-1)]
)
def test_a_duration_out_of_range_is_refused(duration: Duration) -> None:
    """A Duration beyond the range of duration.proto, or of two signs, is InvalidArgument."""
    with pytest.raises(InvalidArgument, match=r"^ttl: "):
        decode.ttl_from(duration)


def test_a_fingerprint_is_the_content() -> None:
    """Equal requests have equal fingerprints in any order of their maps; any difference shows, the kind too."""
    labels = {f"x-{number}": str(number) for number in range(20)}
    one = mail_pb2.SendMailRequest(to=["a@x.org"], labels=labels)
    other = mail_pb2.SendMailRequest(to=["a@x.org"], labels=dict(reversed(labels.items())))
    assert decode.fingerprint_of(one) == decode.fingerprint_of(other)
    other.text = "x"
    assert decode.fingerprint_of(one) != decode.fingerprint_of(other)
    other.text = ""
    other.labels["x-0"] = "1"
    assert decode.fingerprint_of(one) != decode.fingerprint_of(other)
    empty = {decode.fingerprint_of(kind()) for kind in (mail_pb2.GetMailRequest, otp_pb2.SendCodeRequest)}
    assert len(empty) == 2


def _large(**fields: Any) -> mail_pb2.SendMailRequest:
    request = mail_pb2.SendMailRequest(to=[ADA], request_id="r1", text="é" * LARGE, html="<p>")
    request.attachments.add(filename="a", content=b"x" * 300_000)
    request.MergeFrom(mail_pb2.SendMailRequest(**fields))
    return request


async def test_the_fingerprint_of_a_large_mail_is_its_content() -> None:
    """Equal large mails have equal fingerprints in any order of fields and maps; any difference shows."""
    labels = {f"x-{number}": str(number) for number in range(20)}
    octets = _large(labels=labels).SerializeToString()
    fingerprint = (await _submission(mail_pb2.SendMailRequest.FromString(octets))).fingerprint
    fields = [octets[start:end] for start, end in _top_level(octets)]
    reordered = mail_pb2.SendMailRequest.FromString(b"".join(reversed(fields)))
    assert (await _submission(reordered)).fingerprint == fingerprint
    others = [
        _large(labels={**labels, "x-0": "1"}),
        _large(labels=labels, text="é" * (LARGE - 1) + "e"),
        _large(labels=labels, text="é" * (LARGE + 1)),
        _large(labels=labels, html="<b>"),
        _large(labels=labels, attachments=[mail_pb2.Attachment()]),
        _large(labels=labels, attachments=[mail_pb2.Attachment(content=b"x")]),
    ]
    found = {(await _submission(request)).fingerprint for request in others}
    assert len(found) == len(others)
    assert fingerprint not in found


def _top_level(octets: bytes) -> list[tuple[int, int]]:
    """Where each field of a message starts and ends, with its tag."""
    ends = [end for _, _, end in read_fields(octets, 0, len(octets))]
    return list(pairwise([0, *ends]))


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((101, 0, 0), "to: holds more than 100 recipients"),
        ((1, 101, 0), "cc: holds more than 100 recipients"),
        ((1, 0, 101), "bcc: holds more than 100 recipients"),
        ((50, 50, 1), "to: there are more than 100 recipients with cc and bcc"),
    ],
)
async def test_recipients_are_counted_before_any_is_read(counts: tuple[int, int, int], said: str) -> None:
    """Too many recipients are refused by their number, in one list or in all three, whatever they are."""
    to, cc, bcc = (["\0"] * count for count in counts)
    for text in ("", "x" * (LARGE + 1)):
        with pytest.raises(InvalidArgument) as caught:
            await _submission(mail_pb2.SendMailRequest(to=to, cc=cc, bcc=bcc, text=text))
        assert str(caught.value) == said
