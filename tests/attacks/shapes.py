"""Requests of every shape that a contract allows or forbids, made from its descriptors: each is as large as may be.

A shape fills a request with one thing: a field many times, a long field, fields that nobody knows, octets that are no
message. A message in a message is filled in the same ways.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from octets import group, integer, text, varint
from otpmail.api.wire import FIXED32, FIXED64, GROUP, VARINT, tag_of

Build = Callable[[int], bytes]
"""Makes a request of about so many octets."""

Good = Callable[[str], bytes]
"""Returns what else a good message of this kind holds: with it the service goes as far as it can."""

_UNKNOWN = 1000  # a number that no message has
_TEXTS = {
    "ASCII": b"x",
    "two octets": "é".encode(),
    "four octets": "😀".encode(),
    "line ends": b"\n",
    "NUL": b"\0",
    "all widths": ("x" * 8 + "é" * 4 + "€" * 2 + "😀").encode(),
}
_ADDRESS = b"p@example.org"
_ADDRESS_IN_OTHER_LETTERS = "p@bücher.example".encode()


@dataclass(frozen=True)
class Shape:
    """A name to find it by, and how it is made."""

    name: str
    build: Build


def shapes_of(message: Descriptor, good: Good) -> Iterator[Shape]:
    """Yield the shapes of a request; each message in it begins as `good` says."""
    for shape in (*_malformed(), *_fills(message, "", good)):
        yield Shape(shape.name, _begun(message, good, shape.build))


def _fills(message: Descriptor, path: str, good: Good) -> Iterator[Shape]:
    """Yield what may fill a message of this kind."""
    yield from _unknown(path)
    for field in message.fields:
        yield from _field(field, f"{path}{field.name}", good)


def _begun(message: Descriptor, good: Good, build: Build) -> Build:
    return lambda size: good(message.full_name) + build(size)


def _field(field: FieldDescriptor, path: str, good: Good) -> Iterator[Shape]:
    number = field.number
    yield Shape(f"{path}: of the wrong type", _repeat(varint(tag_of(number, FIXED32)) + b"\0\0\0\0"))
    if field.message_type is not None:
        yield Shape(f"{path}: empty ones", _repeat(text(number, b"")))
        yield Shape(f"{path}: one octet each, no message", _repeat(text(number, b"\x0a")))
        for shape in _fills(field.message_type, f"{path}.", good):
            build = _begun(field.message_type, good, shape.build)
            yield Shape(f"{shape.name}, in one", _in_one(number, build))
            yield Shape(f"{shape.name}, in many", _in_many(number, build))
        if field.message_type.GetOptions().map_entry:
            yield Shape(f"{path}: short keys", _keys(number))
    elif field.type in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}:
        yield Shape(f"{path}: empty ones", _repeat(text(number, b"")))
        yield Shape(f"{path}: addresses", _repeat(text(number, _ADDRESS)))
        yield Shape(f"{path}: addresses in other letters", _repeat(text(number, _ADDRESS_IN_OTHER_LETTERS)))
        yield Shape(f"{path}: a kilobyte each", _repeat(text(number, b"x" * 1000)))
        for name, part in _TEXTS.items():
            yield Shape(f"{path}: a long one of {name}", _long(number, part))
    else:
        yield Shape(f"{path}: zeros", _repeat(integer(number, 0)))
        yield Shape(f"{path}: numbers of ten octets", _repeat(varint(tag_of(number, VARINT)) + b"\xff" * 9 + b"\x01"))


def _unknown(path: str) -> Iterator[Shape]:
    yield Shape(f"{path}unknown texts", _repeat(text(_UNKNOWN, b"")))
    yield Shape(f"{path}unknown numbers", _repeat(integer(_UNKNOWN, 0)))
    yield Shape(f"{path}unknown fixed ones", _repeat(varint(tag_of(_UNKNOWN, FIXED64)) + bytes(8)))
    yield Shape(f"{path}unknown groups", _repeat(group(_UNKNOWN, b"")))
    yield Shape(f"{path}an unknown group", lambda size: group(_UNKNOWN, integer(1, 0) * (size // 2)))
    yield Shape(f"{path}an unknown long text", _long(_UNKNOWN, b"x"))
    yield Shape(f"{path}padded tags", _repeat(varint(tag_of(_UNKNOWN, VARINT), octets=5) + varint(0, octets=10)))


def _malformed() -> Iterator[Shape]:
    yield Shape("octets of ones", lambda size: b"\xff" * size)
    yield Shape("zeros", lambda size: b"\0" * size)
    yield Shape("twenty octets of ones", lambda _: b"\xff" * 20)
    yield Shape("nested groups", lambda size: varint(tag_of(1, GROUP)) * size)
    yield Shape("a length beyond the end", lambda size: text(1, b"x" * size)[:-1])
    yield Shape("bad UTF-8", lambda _: text(1, b"\xff\xfe"))
    yield Shape("long bad UTF-8", lambda size: text(1, b"x" * size + b"\xff"))
    yield Shape("ends of groups", lambda size: varint(tag_of(1, GROUP) + 1) * size)


def _repeat(octets: bytes) -> Build:
    return lambda size: octets * max(1, size // len(octets))


def _long(number: int, part: bytes) -> Build:
    return lambda size: text(number, part * (size // len(part)))


def _in_one(number: int, build: Build) -> Build:
    return lambda size: text(number, build(size))


def _in_many(number: int, build: Build) -> Build:
    """Many messages, each of so little that it needs no look at its fields."""
    return lambda size: b"".join(text(number, build(min(size, 60_000))) for _ in range(max(1, size // 60_000)))


def _keys(number: int) -> Build:
    def build(size: int) -> bytes:
        entries, octets = [], 0
        for key in range(size):
            entry = text(number, text(1, b"%x" % key))
            octets += len(entry)
            if octets > size:
                break
            entries.append(entry)
        return b"".join(entries)

    return build
