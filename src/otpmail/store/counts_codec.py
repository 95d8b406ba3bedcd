"""Encodes the counts of a limit over many addresses as octets, packed by hand: there may be millions of them."""

import struct

from otpmail.errors import StoreError
from otpmail.model import STRETCHES, Counts

_VERSION = 1
_HEAD = struct.Struct("=Bdd")  # version, when the counts end, until when they may not be forgotten
_ENDS = struct.Struct("=xdd")
_PAIR = struct.Struct("=II")
_COUNT = struct.Struct("=I")
_OF_PAIRS = tuple([struct.Struct(f"=Bdd{'II' * pairs}") for pairs in range(STRETCHES + 1)])

NO_COUNTS = _HEAD.pack(_VERSION, 0.0, 0.0)
"""The octets of no counts."""


def encode_counts(counts: Counts, ends: float, needed: float) -> bytes:
    """Return counts as octets, with when they end, and until when they may not be forgotten, 0.0 if they may."""
    return _HEAD.pack(_VERSION, ends, needed) + b"".join([_PAIR.pack(*pair) for pair in counts])


def with_one_more(octets: bytes, most: int, now: float, stretch: int) -> bytes | None:
    """Return counts with one more, None where the rules have to say what becomes of them.

    They have to where half of the limit is reached, or a part of the counts has ended.
    """
    # fast path: most mails of a caller find it so, 3 us; held to the full path by tests/otp/test_quotas.py
    pairs, number = (len(octets) - _HEAD.size) // _PAIR.size, int(now // stretch)
    if pairs > STRETCHES:
        return None
    version, _, needed, *known = _OF_PAIRS[pairs].unpack(octets)
    if version != _VERSION or needed or 2 * (sum(known[1::2]) + 1) >= most:
        return None
    if known:
        if known[0] <= number - STRETCHES or known[-2] > number:
            return None
        if known[-2] == number:
            return octets[: -_COUNT.size] + _COUNT.pack(known[-1] + 1)
    ends = float((number + STRETCHES) * stretch)
    return _HEAD.pack(_VERSION, ends, 0.0) + octets[_HEAD.size :] + _PAIR.pack(number, 1)


def decode_counts(octets: bytes) -> Counts:
    """Return the counts that `encode_counts` wrote. Raises StoreError for another version."""
    if octets[0] != _VERSION:
        raise StoreError(
            f"the counts of a limit in the store have version {octets[0]}; this program reads version {_VERSION}"
        )
    return tuple(_PAIR.iter_unpack(octets[_HEAD.size :]))


def counts_needed(octets: bytes) -> float:
    """Return until when counts may not be forgotten, 0.0 if they may, in seconds since the epoch."""
    needed: float = _ENDS.unpack_from(octets)[1]
    return needed


def counts_end(octets: bytes) -> float:
    """Return when counts end, in seconds since the epoch, without decoding the rest."""
    ends: float = _ENDS.unpack_from(octets)[0]
    return ends
