"""Bodies in JSON: what two readers would read as different things is refused."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode, encodebytes, urlsafe_b64encode

import pytest

from otpmail.errors import InvalidArgument
from otpmail.limits.memory import LARGE, NOTHING, Memory
from otpmail.v1 import mail_pb2
from otpmail.web.json_body import from_json, from_large_json

KIND = mail_pb2.SendMailRequest
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
