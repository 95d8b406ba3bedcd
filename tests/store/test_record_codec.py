"""The codec of code records: what is kept comes back whole, and octets of another version are refused."""

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_records import a_record
from otpmail.code_record import Answer, CodeRecord, Lane, Replaced, Slot
from otpmail.errors import StoreError
from otpmail.model import DAY, LETTERS, Challenge, Check, CheckResult
from otpmail.store import record_codec

_TIMES = st.floats(0.0, 1e12)
_SECONDS = st.lists(_TIMES, max_size=300).map(tuple)
_NAMES = st.binary(min_size=8, max_size=8)
_CHALLENGES = st.builds(
    Challenge,
    st.binary(min_size=16, max_size=16),
    st.text(max_size=40),
    _TIMES,
    st.integers(0, 100),
    st.integers(0, 12) | st.integers(LETTERS + 4, LETTERS + 11),
    st.integers(0, 100),
)
_REPLACED = st.builds(
    Replaced,
    _CHALLENGES.map(lambda challenge: replace(challenge, attempts=0)),
    st.lists(_TIMES, min_size=1, max_size=8).map(tuple),
)


def _as_many_attempts(slot: Slot) -> Slot:
    """Return the slot with as many attempts at a replaced challenge as at the live one."""
    if slot.replaced is None:
        return slot
    most = slot.challenge.most if slot.challenge is not None else 0
    return replace(slot, replaced=replace(slot.replaced, challenge=replace(slot.replaced.challenge, most=most)))


_SLOTS = st.builds(
    Slot, _NAMES, _NAMES, st.none() | _CHALLENGES, _TIMES, st.binary(min_size=4, max_size=4), st.none() | _REPLACED
).map(_as_many_attempts)
_CHECKS = st.builds(Check, st.sampled_from(CheckResult), st.integers(0, 100), st.none() | _TIMES) | st.builds(
    lambda device, time: Check(CheckResult.VALID, device=device, time=time), _NAMES, st.floats(1.0, 1e12)
)
_ANSWERS = st.builds(Answer, _NAMES, _CHECKS, _TIMES, st.booleans()).map(
    lambda answer: replace(answer, is_free=answer.is_free and not answer.check.time)
)
_RECORDS = st.builds(
    CodeRecord,
    st.lists(_SLOTS, max_size=5).map(tuple),
    st.lists(st.builds(Lane, _NAMES, _SECONDS, _SECONDS), max_size=3).map(tuple),
    st.lists(_ANSWERS, max_size=4).map(tuple),
)


@given(_RECORDS)
def test_a_code_record_comes_back_whole(record: CodeRecord) -> None:
    """The codec returns a record to the last bit of a time, with as many failures as the settings allow."""
    assert record_codec.decode_record(record_codec.encode_record(record)) == record


@given(_RECORDS)
def test_the_ends_of_a_code_record_are_read_without_the_rest(record: CodeRecord) -> None:
    """The sweep reads the end of a million records, and nothing else of them."""
    octets = record_codec.encode_record(record)[:17]
    assert (record_codec.record_ends(octets), record_codec.record_needed(octets)) == record_codec.ends_of(record)


def test_a_code_record_is_small() -> None:
    """The record of one mail takes at most 112 octets, since a service may keep a million of them."""
    assert len(record_codec.encode_record(a_record(failures=()))) <= 116


@pytest.mark.parametrize("octets", [b"\x04" + record_codec.encode_record(a_record())[1:], b"\x02" + bytes(64)])
def test_another_version_is_a_store_error(octets: bytes) -> None:
    """The message names the version, and the one that this program reads."""
    with pytest.raises(StoreError, match=rf"has version {octets[0]}; this program reads version 3$"):
        record_codec.decode_record(octets)


def test_the_form_that_is_written() -> None:
    """A change of these octets needs a new version: stores of earlier programs hold them."""
    head = struct.pack("=BddBBB", 3, 1000.0 + DAY, 1000.0 + DAY, 1, 1, 0)
    slot = struct.pack("=8s8sd4s16sdhBBB", bytes(8), bytes(8), 1030.0, bytes(4), bytes(range(16)), 1120.0, 2, 6, 2, 0)
    lane = struct.pack("=8sHHd", bytes(8), 1, 0, 1000)
    assert record_codec.encode_record(a_record(attempts=2)) == head + slot + b"k1" + lane
