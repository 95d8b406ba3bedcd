"""Reads protobuf's wire format field by field, without parsing what is in the fields.

It is for octets that would take protobuf too long: a reader may stop at any field. It refuses nothing that protobuf
would parse (https://protobuf.dev/programming-guides/encoding).
"""

from collections.abc import Iterator

VARINT, FIXED64, LENGTH, GROUP, END_GROUP, FIXED32 = range(6)
"""The types of a field's value on the wire, in the lowest three bits of its tag."""

IN_GROUP = 0
"""The tag that a reader gets for a group and for each field in one. All are unknown, since proto3 has no groups.

protobuf lets this tag pass as that of an unknown field, which no message can have.
"""

_VARINT_BITS = 70  # ten octets hold a number of 64 bits, seven in each


class MalformedError(ValueError):
    """The octets are no message."""


def tag_of(number: int, wire_type: int) -> int:
    """The tag of a field with that number and wire type."""
    return number << 3 | wire_type


def read_fields(octets: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the tag of each field between `start` and `end`, and where its value starts and ends.

    The value of a LENGTH field is without its length. Raises MalformedError where the octets are no message.
    """
    at, groups = start, 0
    while at < end:
        tag, at = _read_varint(octets, at, end)
        wire_type = tag & 7
        value = at
        if wire_type == LENGTH:
            size, value = _read_varint(octets, at, end)
            at = value + size
        elif wire_type == VARINT:
            _, at = _read_varint(octets, at, end)
        elif wire_type == FIXED64:
            at += 8
        elif wire_type == FIXED32:
            at += 4
        elif wire_type == GROUP:
            groups += 1
        elif wire_type != END_GROUP or not groups:
            raise MalformedError
        if at > end:
            raise MalformedError
        yield (IN_GROUP if groups else tag), value, at
        groups -= wire_type == END_GROUP
    if groups:
        raise MalformedError


def _read_varint(octets: bytes, at: int, end: int) -> tuple[int, int]:
    """Return the number that starts there, and where the next octet is."""
    number = shift = 0
    while at < end and shift < _VARINT_BITS:
        octet = octets[at]
        at += 1
        if octet < 0x80:
            return number | octet << shift, at
        number |= (octet & 0x7F) << shift
        shift += 7
    raise MalformedError
