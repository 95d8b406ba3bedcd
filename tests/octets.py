"""Writes protobuf's wire format by hand, for messages that no encoder would write."""

from otpmail.api.wire import END_GROUP, GROUP, LENGTH, VARINT, tag_of


def varint(number: int, *, octets: int = 0) -> bytes:
    """Return a number in as few octets as it needs, or in that many."""
    written = bytearray()
    while number > 0x7F or len(written) < octets - 1:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*written, number))


def text(number: int, value: bytes) -> bytes:
    """Return a field with a text, octets or a message."""
    return varint(tag_of(number, LENGTH)) + varint(len(value)) + value


def integer(number: int, value: int) -> bytes:
    """Return a field with an integer."""
    return varint(tag_of(number, VARINT)) + varint(value)


def group(number: int, value: bytes) -> bytes:
    """Return a field with a group, which proto3 has no more."""
    return varint(tag_of(number, GROUP)) + value + varint(tag_of(number, END_GROUP))
