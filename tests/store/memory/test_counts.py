"""Counts of limits in memory stay within what they are given, and those that limit somebody stay."""

import pytest

from otpmail.errors import MemoryFull
from otpmail.store.counts_codec import encode_counts
from otpmail.store.memory.counts import MemoryCounts

_NOW = 1000.0
_FREE = encode_counts(((3, 1),), 4200.0, 0.0)
_REACHED = encode_counts(((3, 9),), 4200.0, 4200.0)


def test_counts_that_limit_somebody_are_never_forgotten() -> None:
    """Without room ten thousand new counts push out others, and none that has reached its limit."""
    counts = MemoryCounts()
    reached = [f"reached {number}".encode() for number in range(100)]
    for key in reached:
        counts.write(key, _REACHED)
    for number in range(50):
        counts.write(f"free {number}".encode(), _FREE)
    octets, count = counts.octets, len(counts)
    for number in range(10_000):
        key = f"new {number}".encode()
        counts.make_room(key, _NOW)
        counts.write(key, _FREE)
    assert len(counts) <= count
    assert counts.octets <= octets
    assert all(counts.read(key) == _REACHED for key in reached)


def test_without_room_a_new_count_is_refused() -> None:
    """Where all counts limit somebody, a new one is refused, and one that is there goes on."""
    counts = MemoryCounts()
    counts.write(b"a", _REACHED)
    counts.make_room(b"a", _NOW)
    with pytest.raises(MemoryFull):
        counts.make_room(b"b", _NOW)
    counts.make_room(b"b", 4200.0)
    assert len(counts) == 0
    assert counts.octets == 0


def test_counts_that_have_ended_are_swept() -> None:
    """A sweep drops what has ended, and looks at no more than it is told to."""
    counts = MemoryCounts()
    for number in range(5):
        counts.write(bytes([number]), _FREE)
    assert counts.sweep(4199.0, most=5) == 0
    assert counts.sweep(4200.0, most=3) == 3
    assert counts.sweep(4200.0, most=3) == 2
    assert counts.octets == 0
