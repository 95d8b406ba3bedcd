"""Encodes the counts of a limit over many addresses as octets, packed by hand: there may be millions of them."""

import struct

from otpmail.errors import StoreError
from otpmail.model import Counts

_VERSION = 1
_HEAD = struct.Struct("=Bdd")  # version, when the counts end, until when they may not be forgotten
_ENDS = struct.Struct("=xdd")
_PAIR = struct.Struct("=II")

NO_COUNTS = _HEAD.pack(_VERSION, 0.0, 0.0)
"""The octets of no counts."""


def encode_counts(counts: Counts, ends: float, needed: float) -> bytes:
    """Return counts as octets, with when they end, and until when they may not be forgotten, 0.0 if they may."""
    return _HEAD.pack(_VERSION, ends, needed) + b"".join([_PAIR.pack(*pair) for pair in counts])


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
