"""The reader of protobuf's wire format, held to protobuf itself."""

from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import example, given
from hypothesis import strategies as st

from octets import group, integer, text, varint
from otpmail.api.wire import FIXED32, FIXED64, IN_GROUP, LENGTH, VARINT, MalformedError, read_fields, tag_of

_NUMBERS = st.integers(1, 40) | st.integers(1, (1 << 29) - 1)
_TEXTS = st.builds(text, _NUMBERS, st.binary(max_size=300))
_INTEGERS = st.builds(integer, _NUMBERS, st.integers(0, (1 << 64) - 1))
_PADDED = st.builds(
    lambda number, value, octets: varint(tag_of(number, VARINT), octets=5) + varint(value, octets=octets),
    st.integers(1, 40),
    st.integers(0, 1 << 20),
    st.integers(0, 12),
)
_FIXED = st.builds(
    lambda number, wide, value: varint(tag_of(number, FIXED64 if wide else FIXED32)) + value[: 8 if wide else 4],
    _NUMBERS,
    st.booleans(),
    st.binary(min_size=8, max_size=8),
)
_PLAIN = _TEXTS | _INTEGERS | _PADDED | _FIXED
_GROUPS = st.builds(group, _NUMBERS, st.recursive(_PLAIN, lambda inside: st.builds(group, _NUMBERS, inside)))
_MESSAGES = st.lists(_PLAIN | _GROUPS | st.binary(max_size=3), max_size=20).map(b"".join) | st.binary(max_size=50)


def _read(octets: bytes) -> list[tuple[int, int, int]]:
    return list(read_fields(octets, 0, len(octets)))


def _value(octets: bytes) -> Any:
    """A varint as protobuf shows it."""
    return sum((octet & 0x7F) << 7 * place for place, octet in enumerate(octets)) & (1 << 64) - 1


@given(_MESSAGES)
@example(b"\0\0")
def test_it_reads_what_protobuf_reads(octets: bytes) -> None:
    """Whatever protobuf parses, it reads as the same fields with the same values; fields in groups have no tag."""
    message = Empty()
    try:
        message.MergeFromString(octets)
    except DecodeError:
        return
    outside = [(tag, octets[start:end]) for tag, start, end in _read(octets) if tag != IN_GROUP]
    known: Any = UnknownFieldSet(message)
    fields = [(one.field_number, one.wire_type, one.data) for one in known if one.wire_type not in {3, 4}]
    expected = [field for field in fields if tag_of(field[0], field[1]) != IN_GROUP]  # protobuf lets tag 0 pass
    assert [(tag >> 3, tag & 7) for tag, _ in outside] == [(number, kind) for number, kind, _ in expected]
    for (tag, value), (_, _, data) in zip(outside, expected, strict=True):
        match tag & 7:
            case 0:
                assert _value(value) == data
            case 2:
                assert value == data
            case _:
                assert int.from_bytes(value, "little") == data


def test_a_message_in_a_message_is_read_between_its_ends() -> None:
    """The reader stays between the two places that it is given, and yields where each value is."""
    inside = text(1, b"X-A") + text(2, b"1")
    octets = text(9, inside) + integer(11, 300)
    (outer, start, end), (number, at, stop) = _read(octets)
    assert (outer, octets[start:end]) == (tag_of(9, LENGTH), inside)
    assert (number, octets[at:stop]) == (tag_of(11, VARINT), varint(300))
    assert [octets[begin:till] for _, begin, till in read_fields(octets, start, end)] == [b"X-A", b"1"]


def test_a_group_is_one_unknown_field_and_each_in_it_another() -> None:
    """A group's fields have no tags of their own, so that none is taken for a field of the message."""
    octets = group(3, text(1, b"x") + group(4, integer(2, 1))) + text(1, b"y")
    assert [tag for tag, _, _ in _read(octets)] == [IN_GROUP] * 6 + [tag_of(1, LENGTH)]


@pytest.mark.parametrize(
    "octets",
    [
        b"\xff" * 20,
        b"\x0a",
        b"\x0a\x05ab",
        b"\x08",
        b"\x08" + b"\x80" * 10 + b"\x01",
        b"\x09\0\0\0",
        b"\x0d\0",
        b"\x0b",
        b"\x0c",
        b"\x0e",
        b"\x0f",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x80",
    ],
    ids=bytes.hex,
)
def test_octets_that_are_no_message(octets: bytes) -> None:
    """A value beyond the end, a number without end, a group without one, or an unknown wire type is malformed."""
    with pytest.raises(MalformedError):
        _read(octets)
    with pytest.raises(DecodeError):
        Empty().MergeFromString(octets)


def test_a_value_beyond_the_end_of_its_message_is_malformed() -> None:
    """Octets behind the end are not read, even where there are some."""
    octets = text(1, b"abc")
    with pytest.raises(MalformedError):
        list(read_fields(octets, 0, len(octets) - 1))
