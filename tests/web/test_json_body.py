"""Bodies in JSON: what two readers would read as different things is refused."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode, encodebytes, urlsafe_b64encode
from typing import TYPE_CHECKING

import pytest

from otpmail.errors import InvalidArgument
from otpmail.limits.memory import LARGE, NOTHING, Memory
from otpmail.v1 import address_pb2, mail_pb2, otp_pb2
from otpmail.web.json_body import from_json, from_large_json
from otpmail.web.json_mistakes import what_it_takes

if TYPE_CHECKING:
    from google.protobuf.message import Message

KIND = mail_pb2.SendMailRequest
ONE_OF_PRIORITIES = f"must be one of {', '.join(mail_pb2.Priority.keys())} in JSON"
OCTETS = bytes(range(256))


async def _at_once() -> None:
    await asyncio.sleep(0)


async def _read(body: bytes, *, large: bool) -> mail_pb2.SendMailRequest:
    """Read a body as a small one, or as a large one with white space behind it."""
    if not large:
        return KIND.FromString(from_json(body, KIND))
    memory = Memory(100 << 20, NOTHING, NOTHING)
    space = " ".encode("utf-16-le" if body.startswith(b"\xff\xfe") else "utf-8")
    return KIND.FromString(await from_large_json(body + space * LARGE, KIND, memory, _at_once))


def _with(content: object, **more: object) -> bytes:
    return json.dumps({"attachments": [{"filename": "a.bin", "content": content, **more}]}).encode()


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize(
    "content",
    ["data:image/png;base64,iVBORw0KGgo=", "@@@@", "AA==BB==", "AAAA\u00e9", "A", 5, [1], {"a": 1}, True],
    ids=["url", "signs", "two", "letter", "short", "number", "list", "object", "truth"],
)
async def test_octets_that_are_no_base64(content: object, *, large: bool) -> None:
    """Octets that are no base64 are refused, and not passed over: a file would have other content."""
    with pytest.raises(InvalidArgument, match=r"content|attachments"):
        await _read(_with(content), large=large)


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode, encodebytes])
async def test_octets_in_base64(encode: object, *, large: bool) -> None:
    """Both alphabets are read, with or without padding, and in lines."""
    assert callable(encode)
    text = encode(OCTETS).decode()
    for given in (text, text.strip("=\n")):
        (attachment,) = (await _read(_with(given), large=large)).attachments
        assert attachment.content == OCTETS


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
async def test_octets_that_are_null(*, large: bool) -> None:
    """By the mapping of protobuf to JSON any field may be null, as if it were not there."""
    (attachment,) = (await _read(_with(None), large=large)).attachments
    assert (attachment.filename, attachment.content) == ("a.bin", b"")


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
async def test_a_field_with_both_of_its_names(*, large: bool) -> None:
    """A field that comes by both of its names is refused at any depth; names in a map are the caller's own."""
    for body in (_with("", contentType="text/plain", content_type="text/html"), b'{"requestId":"a","request_id":"b"}'):
        with pytest.raises(InvalidArgument, match="in JSON"):
            await _read(body, large=large)
    labels = {"a_b": "1", "ab": "2", "AB": "3"}
    assert (await _read(json.dumps({"labels": labels}).encode(), large=large)).labels == labels


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
async def test_json_is_utf_8(*, large: bool) -> None:
    """Other encodings are refused, half characters too; a mark at the start is passed over."""
    text = '{"subject": "h\u00e9"}'
    for octets in (
        text.encode("utf-16"),
        text.encode("utf-16-le"),
        b'{"subject":"\xed\xa0\x80"}',
        b'{"subject":"\xff"}',
    ):
        with pytest.raises(InvalidArgument):
            await _read(octets, large=large)
    assert (await _read(text.encode("utf-8-sig"), large=large)).subject == "h\u00e9"


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"attachments": [{"filename": 5}]}, "attachments.filename: must be text in JSON"),
        ({"attachments": [{"nope": 5}]}, "attachments.nope: is no field of otpmail.v1.Attachment"),
        ({"attachments": [{"content": "!"}]}, "attachments.content: is not base64"),
        (
            {"attachments": [{"contentType": "a", "content_type": "b"}]},
            "attachments.content_type: comes twice in JSON",
        ),
        ({"attachments": [5]}, "attachments: must be a list of objects in JSON"),
        ({"headers": [{"value": []}]}, "headers.value: must be text in JSON"),
        ({"to": "a@b.example"}, "to: must be a list of texts in JSON"),
        ({"to": [1]}, "to: must be a list of texts in JSON"),
        ({"labels": {"a": 1}}, "labels: must be an object with texts in JSON"),
        ({"subject": "\ud800"}, "subject: has half of a character in JSON"),
        ({"ttl": 5}, "ttl: must be seconds such as 1.5s, in quotes in JSON"),
        ({"priority": "HIGH"}, f"priority: {ONE_OF_PRIORITIES}"),
        ({"priority": 1.5}, f"priority: {ONE_OF_PRIORITIES}"),
        ({"priority": True}, f"priority: {ONE_OF_PRIORITIES}"),
        ({"priority": float("nan")}, f"priority: {ONE_OF_PRIORITIES}"),
    ],
    ids=json.dumps,
)
async def test_a_value_of_another_type(body: object, problem: str, *, large: bool) -> None:
    """The error names the field at its depth, and what it takes."""
    with pytest.raises(InvalidArgument) as caught:
        await _read(json.dumps(body).encode(), large=large)
    assert str(caught.value) == problem


@pytest.mark.parametrize("priority", ["PRIORITY_BULK", 2, 2.0, "2"], ids=repr)
async def test_an_enum_by_name_or_number(priority: object) -> None:
    """An enum is its name, or its number."""
    assert (await _read(json.dumps({"priority": priority}).encode(), large=False)).priority == mail_pb2.PRIORITY_BULK


@pytest.mark.parametrize(
    ("kind", "body", "problem"),
    [
        (mail_pb2.ListMailsRequest, b'{"pageSize": 1.5}', "pageSize: must be a whole number of 32 bits in JSON"),
        (
            mail_pb2.ListMailsRequest,
            b'{"pageSize": 99999999999}',
            "pageSize: must be a whole number of 32 bits in JSON",
        ),
        (address_pb2.ReleaseAddressRequest, b'{"budgets": 1}', "budgets: must be true or false in JSON"),
    ],
    ids=["fraction", "large", "truth"],
)
def test_numbers_and_truths(kind: type[Message], body: bytes, problem: str) -> None:
    """The error says which numbers a field takes."""
    with pytest.raises(InvalidArgument) as caught:
        from_json(body, kind)
    assert str(caught.value) == problem


def test_every_field_has_words() -> None:
    """Each field of the contract has words for what it takes, so that a new type can't be forgotten."""
    for file in (mail_pb2, otp_pb2, address_pb2):
        for message in file.DESCRIPTOR.message_types_by_name.values():
            for field in message.fields:
                assert what_it_takes(field).startswith("must be ")
