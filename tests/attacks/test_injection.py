"""Line ends, ends of data and commands in every field of every method: none of them leaves as more than a value."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from attacks.calling import methods_of, statuses
from attacks.targets import somebody

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
    from google.protobuf.message import Message

    from attacks.targets import Target
    from relay import CaughtMail

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.one_store]

EVE = "eve@evil.example"
_TRANSACTION = f"MAIL FROM:<{EVE}>\r\nRCPT TO:<{EVE}>\r\nDATA\r\nX-Injected: 1\r\n\r\nowned\r\n.\r\n"
PAYLOADS = {
    "a header": f"\r\nBcc: {EVE}\r\nX-Injected: 1\r\n\r\nowned",
    "a header behind LF": f"\nBcc: {EVE}\nX-Injected: 1",
    "a header behind CR": f"\rBcc: {EVE}\rX-Injected: 1",
    "a header behind other line ends": f"\u2028Bcc: {EVE}\u0085X-Injected: 1\x0bX-Injected: 2\x0cX-Injected: 3",
    "line ends once cut to an octet": f"\u560d\u560aBcc: {EVE}\u560d\u560aX-Injected: 1",
    "an encoded word": "=?utf-8?q?a=0D=0ABcc=3A_eve=40evil.example?= =?utf-8?q?=0D=0AX-Injected=3A_1?=",
    "percent signs": f"%0d%0aBcc: {EVE}%0d%0aX-Injected: 1",
    "an end of data": f"\r\n.\r\n{_TRANSACTION}",
    "an end of data with LF": f"\n.\n{_TRANSACTION}",
    "an end of data with LF and CRLF": f"\n.\r\n{_TRANSACTION}",
    "an end of data with CR": f"\r.\r\r\n.\r{_TRANSACTION}",
    "a chunk": f"\r\nRSET\r\nMAIL FROM:<{EVE}>\r\nRCPT TO:<{EVE}>\r\nBDAT 5 LAST\r\nowned",
    "the end of a path": f"> SIZE=1\r\nRCPT TO:<{EVE}",
    "another path": f">,<{EVE}",
    "NUL": f"\0\r\nRCPT TO:<{EVE}>",
}
FORMS = ("{payload}", "{address}{payload}", "{payload} <{address}>")

MODES: dict[str, dict[str, Any]] = {
    "BDAT": {"chunking": True, "pipelining": True},
    "DATA": {"chunking": False, "pipelining": True},
    "plain": {"chunking": False, "pipelining": False},
}
_AT_ONCE = 20
_WORDS_OF_MAIL = {"MAIL", "RCPT"}
_INJECTED = {b"bcc", b"x-injected"}
_REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,  # of CancelMail, for a mail that an earlier request has named so
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


@pytest.mark.parametrize("mode", list(MODES))
async def test_no_field_adds_a_header_a_recipient_or_a_command(target: Target, mode: str, *, full: bool) -> None:
    """Whatever stands in a field, each mail has the recipients that were asked for, our headers, and whole lines."""
    relay = target.relay
    before = relay.faults
    await _switch(target, replace(before, **MODES[mode]))
    try:
        mails, commands = len(relay.mails), len(relay.commands)
        refusals = [said async for said in _attack(target, full=full)]
        assert len(relay.mails) > mails
        caught = _faults_of(relay.mails[mails:], [command.line for command in relay.commands[commands:]])
        faults = dict.fromkeys((*caught, *refusals))  # each once: what left is worse than a wrong status
        assert not faults, "\n".join(faults)
        if target.system.services:  # another server may know nothing but DATA
            assert {mail.mode for mail in relay.mails[mails:]} == {"BDAT" if mode == "BDAT" else "DATA"}
    finally:
        await _switch(target, before)


async def _attack(target: Target, *, full: bool) -> AsyncIterator[str]:
    """Send all requests, some at once, and yield those that are neither taken nor refused."""
    requests = _requests(target, full=full)
    while batch := list(islice(requests, _AT_ONCE)):
        calls = (statuses(target.channel, method, octets, target.metadata) for _, method, octets in batch)
        for (name, method, _), got in zip(batch, await asyncio.gather(*calls), strict=True):
            if others := got - {grpc.StatusCode.OK, *_REFUSED}:
                yield f"{method.full_name}, {name}: {', '.join(one.name for one in others)}"


def _requests(target: Target, *, full: bool) -> Iterator[tuple[str, MethodDescriptor, bytes]]:
    """Yield a request for each payload in each field of each method; in the short form, one of the forms in turn."""
    count = 0
    for method in methods_of(target.contract):
        for path in _paths(method.input_type):
            for name, payload in PAYLOADS.items():
                count += 1
                for form in FORMS if full else (FORMS[count % len(FORMS)],):
                    value = form.format(payload=payload, address=somebody())
                    yield f"{'.'.join(path)}: {name}", method, _filled(method.input_type, path, value)


def _paths(message: Descriptor) -> Iterator[tuple[str, ...]]:
    """Yield where a message has a text or octets, in itself and in the messages of its fields."""
    for field in message.fields:
        if field.message_type is None:
            if field.type in {field.TYPE_STRING, field.TYPE_BYTES}:
                yield (field.name,)
        elif field.message_type.file is message.file or field.message_type.GetOptions().map_entry:
            yield from ((field.name, *rest) for rest in _paths(field.message_type))


def _filled(message: Descriptor, path: tuple[str, ...], value: str) -> bytes:
    """Return a request that is good but for the value at that path."""
    request = GetMessageClass(message)()
    _make_good(request)
    _put(request, path, value)
    return request.SerializeToString()


def _make_good(request: Message) -> None:
    """Set what a request of this kind needs, so that it goes as far as it can."""
    good: dict[str, Any] = {"email": somebody(), "code": "123456", "otpCode": "123456", "subject": "s", "body": "b"}
    for name, value in {**good, "text": "t", "to": somebody()}.items():
        field: Any = request.DESCRIPTOR.fields_by_name.get(name)
        if field is not None:
            _set(request, field, value)


def _put(request: Message, path: tuple[str, ...], value: str) -> None:
    field: Any = request.DESCRIPTOR.fields_by_name[path[0]]
    if len(path) == 1:
        _set(request, field, value)
        return
    fields = getattr(request, path[0])
    if field.message_type.GetOptions().map_entry:
        key, held = (value, "x") if path[1] == "key" else ("name", value)
        fields[key] = held
        return
    inner = fields.add() if field.is_repeated else fields
    if field.message_type.name == "Header":
        inner.name, inner.value = "X-Ours", "v"
    _make_good(inner)
    if inner.DESCRIPTOR.name == "SendMailRequest":
        inner.request_id = somebody()
    _put(inner, path[1:], value)


def _set(message: Message, field: FieldDescriptor, value: str) -> None:
    held: Any = value.encode() if field.type == field.TYPE_BYTES else value
    if field.is_repeated:
        del getattr(message, field.name)[:]
        getattr(message, field.name).append(held)
    else:
        setattr(message, field.name, held)


async def _switch(target: Target, faults: Any) -> None:
    """Have the relay announce something else, which a client sees on its next connection."""
    target.relay.faults = faults
    target.relay.cut_connections()
    await target.wait_until_it_mails()


def _faults_of(mails: list[CaughtMail], commands: list[str]) -> Iterator[str]:
    """Yield what is wrong with what the relay got: the envelopes, the headers and the line ends of each mail."""
    for line in commands:
        if line[:4] in _WORDS_OF_MAIL and (
            "evil" in line or not re.fullmatch(r"(MAIL FROM|RCPT TO):<[^<>\r\n]*>( [A-Z0-9]+(=[^ \r\n]+)?)*", line)
        ):
            yield f"a command: {line!r}"
    for mail in mails:
        head = mail.content.partition(b"\r\n\r\n")[0]
        lines = [line for line in head.split(b"\r\n") if line[:1] not in b" \t"]
        yield from (f"a header: {line!r}" for line in lines if line.partition(b":")[0].lower() in _INJECTED)
        if found := re.search(rb".{0,40}(?:\r(?!\n)|(?<!\r)\n).{0,40}", mail.content):
            yield f"a line end that is not CRLF: {found[0]!r}"
