"""The bounds of large requests: what is beyond them is found before protobuf parses anything."""

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from cost import lines_run
from octets import group, integer, text, varint
from otpmail.api.bounds import Bounds, Size, bounds_of_mail, bounds_of_original_mail
from otpmail.compose.attachment import MAX_ATTACHMENTS, MAX_FILENAME
from otpmail.compose.draft import MAX_REPLY_TO, MAX_SUBJECT, Limits
from otpmail.compose.fields import MAX_HEADER_VALUE, MAX_HEADERS
from otpmail.errors import InvalidArgument
from otpmail.header_names import MAX_HEADER_NAME
from otpmail.mail.labels import MAX_LABELS
from otpmail.v1 import mail_pb2

LIMITS = Limits(size=1000, recipients=3)
MANY = 1_000_000
_FIELDS = {field.name: field.number for field in mail_pb2.SendMailRequest.DESCRIPTOR.fields}


def _refusal(octets: bytes) -> str:
    """Return the error for a request."""
    with pytest.raises(InvalidArgument) as caught:
        bounds_of_mail(LIMITS).check(octets)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "item", "said"),
    [
        ("to", b"", "to: there are more than 3"),
        ("cc", b"a@x.org", "cc: there are more than 3"),
        ("bcc", b"", "bcc: there are more than 3"),
        ("headers", b"", f"headers: there are more than {MAX_HEADERS}"),
        ("labels", b"", f"labels: there are more than {MAX_LABELS}"),
        ("attachments", b"", f"attachments: there are more than {MAX_ATTACHMENTS}"),
        ("subject", b"", "subject: is there more than 1000 times"),
        ("ttl", b"\x08\x01", "ttl: is there more than 1000 times"),
        ("attachments", text(1, b"") * MANY, "attachments[0].filename: is there more than 1000 times"),
        ("attachments", text(77, b"") * MANY, "attachments[0]: holds more than 1000 fields that this version does not"),
        ("headers", text(1, b"X-A") * MANY, "headers[0].name: is there more than 1000 times"),
        ("labels", text(1, b"tenant") * MANY, "labels['tenant']: is there more than 1000 times"),
        ("reply_to", b"", f"reply_to: there are more than {MAX_REPLY_TO}"),
        ("ttl", integer(1, 1) * MANY, "ttl.seconds: is there more than 1000 times"),
    ],
)
def test_a_field_that_comes_too_often_is_named(name: str, item: bytes, said: str) -> None:
    """However often a field comes, the reader stops at its bound."""
    octets = text(_FIELDS[name], item) * (MANY if len(item) < 10 else 1)
    errors: list[str] = []
    assert lines_run(lambda: errors.append(_refusal(octets))) < 100_000
    assert errors[0].startswith(said)


@pytest.mark.parametrize(
    "octets",
    [
        text(99, b""),
        integer(99, 1),
        varint(99 << 3, octets=5) + varint(1, octets=10),
        group(99, b""),
        group(99, text(1, b"a@x.org") * 100),
        integer(1, 7),  # `to` with the wire type of a number
    ],
    ids=["text", "number", "padded", "group", "in a group", "wrong type"],
)
def test_unknown_fields_are_bounded_together(octets: bytes) -> None:
    """A few fields that this version does not know are let through; many are refused, in the message's name."""
    bounds_of_mail(LIMITS).check(octets * 4)
    assert _refusal(octets * 1001) == "SendMailRequest: holds more than 1000 fields that this version does not know"


def test_the_octets_of_unknown_fields_are_bounded_together() -> None:
    """Unknown fields of 64 KiB in all are let through, in whatever messages they are; more are refused."""
    bounds = bounds_of_mail(LIMITS)
    half = text(99, b"x" * (32 << 10))
    inside = text(_FIELDS["attachments"], half)
    bounds.check(half + inside)
    said = "holds more than 65536 octets that this version does not know"
    assert _refusal(half + half + text(99, b"x")) == f"SendMailRequest: {said}"
    assert _refusal(half + inside + inside) == f"attachments[1]: {said}"


def test_what_may_be_spared_is_counted_over_all_messages() -> None:
    """Fifty attachments have no more unknown fields than one."""
    assert _refusal(text(_FIELDS["attachments"], integer(9, 1) * 30) * 50).startswith("attachments[33]: holds more")


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (text(_FIELDS["to"], b"a@x.org") + text(_FIELDS["to"], b"x" * 5000), "to[1]: is longer than a name and an"),
        (text(_FIELDS["from"], b"x" * 5000), "from: is longer than a name and an address can be"),
        (text(_FIELDS["subject"], b"x" * 4000), f"subject: is longer than {MAX_SUBJECT} characters"),
        (text(_FIELDS["text"], b"x" * 1001), "text: makes the mail larger than 1000 octets"),
        (text(_FIELDS["html"], b"x" * 1001), "html: makes the mail larger than 1000 octets"),
        (text(_FIELDS["request_id"], b"x" * 1001), "request_id: is longer than 128 characters"),
        (
            text(_FIELDS["headers"], text(1, b"X" * 300) + text(2, b"1")),
            f"headers[0].name: is longer than {MAX_HEADER_NAME} characters",
        ),
        (text(_FIELDS["headers"], text(2, b"x" * 70_000)), "headers[0].value: is longer than 16384 characters"),
        (text(_FIELDS["labels"], text(1, b"x" * 300)), f"labels[{'x' * 64!r}]: has a name longer than 64 characters"),
        (
            text(_FIELDS["labels"], text(1, b"tenant") + text(2, b"x" * 2000)),
            "labels['tenant']: is longer than 256 characters",
        ),
        (text(_FIELDS["labels"], text(2, b"x" * 2000)), "labels['']: is longer than 256 characters"),
        (text(_FIELDS["reply_to"], b"x" * 5000), "reply_to[0]: is longer than a name and an address can be"),
        (text(_FIELDS["return_path"], b"x" * 5000), "return_path: is longer than a name and an address can be"),
        (text(_FIELDS["sender"], b"x" * 5000), "sender: is longer than a name and an address can be"),
        (text(_FIELDS["message_id"], b"x" * 1001), "message_id: is longer than 250 characters"),
        (
            text(_FIELDS["attachments"], b"") + text(_FIELDS["attachments"], text(1, b"x" * 1100)),
            f"attachments[1].filename: is longer than {MAX_FILENAME} characters",
        ),
        (
            text(_FIELDS["attachments"], text(3, b"x" * 1001)),
            "attachments[0].content: makes the mail larger than 1000 octets",
        ),
        (text(_FIELDS["attachments"], text(2, b"x" * 2000)), "attachments[0].content_type: is longer than 1024 octets"),
    ],
)
def test_a_text_that_is_too_long_is_named(octets: bytes, said: str) -> None:
    """A text of more octets than its characters can take is refused by its length, in its field's name."""
    assert _refusal(octets).startswith(said)


def test_what_is_within_its_bounds_passes() -> None:
    """The largest request that keeps all bounds passes, in any order of its fields."""
    request = mail_pb2.SendMailRequest(
        to=["ä" * 766] * 3,
        cc=["ä" * 766] * 3,
        bcc=["ä" * 766] * 3,
        subject="😀" * MAX_SUBJECT,
        text="x" * 1000,
        html="x" * 1000,
        reply_to=["ä" * 766] * MAX_REPLY_TO,
        return_path="ä" * 766,
        sender="ä" * 766,
        message_id="x" * 252,
        headers=[mail_pb2.Header(name="x" * 64, value="😀" * MAX_HEADER_VALUE)] * MAX_HEADERS,
        attachments=[mail_pb2.Attachment(filename="😀" * MAX_FILENAME, content=b"x" * 1000)] * MAX_ATTACHMENTS,
        request_id="😀" * 128,
        labels={f"{number:064}": "😀" * 256 for number in range(MAX_LABELS)},
        priority=mail_pb2.PRIORITY_BULK,
    )
    request.ttl.FromSeconds(5)
    bounds = bounds_of_mail(LIMITS)
    octets = request.SerializeToString()
    bounds.check(octets)
    bounds.check(integer(11, 1) * 1000 + octets)
    assert bounds_of_original_mail(LIMITS).message.name == "SendEmailRequest"


def test_a_field_without_a_bound_is_an_error_at_the_start() -> None:
    """A field that is added to the contract must get its bound, or the service does not start."""
    message = mail_pb2.SendMailsResponse.Result.DESCRIPTOR
    names = {"request_id", "message", "mail.id", "mail.message_id", "mail.request_id", "mail.caller"}
    names |= {"mail.labels.key", "mail.labels.value"}
    counts = {"mail.recipients": 1, "mail.labels": 1}
    names |= {f"mail.recipients.{name}" for name in ("address", "enhanced_code", "reply", "suppression.reason")}
    sizes = {name: Size(10, "is too long") for name in names}
    Bounds(message, counts, sizes)
    for name in counts:
        with pytest.raises(KeyError):
            Bounds(message, {other: most for other, most in counts.items() if other != name}, sizes)
    for name in names:
        with pytest.raises(KeyError):
            Bounds(message, counts, {other: size for other, size in sizes.items() if other != name})


@pytest.mark.parametrize("kind", [FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_MESSAGE])
def test_the_fields_of_the_contract_are_known(kind: Any) -> None:
    """A request with each field once spends nothing of what is kept for unknown fields."""
    octets = b"".join(
        integer(field.number, 0) if field.enum_type else text(field.number, b"")
        for field in mail_pb2.SendMailRequest.DESCRIPTOR.fields
        if field.type == kind
    )
    assert octets
    bounds_of_mail(LIMITS).check(integer(99, 1) * 1000 + octets)
    assert "more than 1000 fields that this version does not" in _refusal(integer(99, 1) * 1001 + octets)
