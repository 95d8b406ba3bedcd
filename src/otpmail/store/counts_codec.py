"""Encodes the counts of a limit over many addresses as octets, packed by hand: there may be millions of them."""

import struct
from functools import lru_cache

from otpmail.errors import StoreError
from otpmail.model import STRETCHES, Counts

_VERSION = 1
_REMEMBERED = 1024  # limits whose counts are at hand
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
    # fast path: most mails of a caller find it so, 0.4 us; held to the full path by tests/otp/test_quotas.py
    number, head = int(now // stretch), octets[: -_COUNT.size]
    latest, below = _standing(head, most)
    if latest == number:
        (count,) = _COUNT.unpack_from(octets, len(head))  # as `_last_of`, without its call
        return head + _COUNT.pack(count + 1) if count < below else None
    return _with_next(octets, most, number, stretch)


def run_of(octets: bytes, most: int) -> tuple[int, int]:
    """Return the latest stretch of counts, and how often more `with_one_more` counts in it."""
    latest, below = _standing(octets[: -_COUNT.size], most)
    return latest, max(0, below - _last_of(octets))


def counted_on(octets: bytes, more: int) -> bytes:
    """Return counts with so many more in their latest stretch."""
    return octets[: -_COUNT.size] + _COUNT.pack(_last_of(octets) + more)


def _last_of(octets: bytes) -> int:
    count: int = _COUNT.unpack_from(octets, len(octets) - _COUNT.size)[0]
    return count


@lru_cache(_REMEMBERED)
def _standing(head: bytes, most: int) -> tuple[int, int]:
    """Return the latest stretch of counts without the count of that stretch, and below which that may be counted up.

    The stretch is -1 where the rules have to say.
    """
    pairs = _pairs_of(head + bytes(_COUNT.size))
    if not pairs or pairs[0] <= pairs[-2] - STRETCHES:
        return -1, 0
    return pairs[-2], (most + 1) // 2 - 1 - sum(pairs[1::2])


@lru_cache(_REMEMBERED)  # since a caller with no wrong code has the same counts at each check
def _with_next(octets: bytes, most: int, number: int, stretch: int) -> bytes | None:
    """Return counts with the first one of a stretch, None where the rules have to say."""
    pairs = _pairs_of(octets)
    if pairs is None or 2 * (sum(pairs[1::2]) + 1) >= most:
        return None
    if pairs and (pairs[0] <= number - STRETCHES or pairs[-2] >= number):
        return None
    ends = float((number + STRETCHES) * stretch)
    return _HEAD.pack(_VERSION, ends, 0.0) + octets[_HEAD.size :] + _PAIR.pack(number, 1)


def _pairs_of(octets: bytes) -> list[int] | None:
    """Return the stretches and their counts in turn, None where only the rules can read them."""
    count = (len(octets) - _HEAD.size) // _PAIR.size
    if count > STRETCHES:
        return None
    version, _, needed, *pairs = _OF_PAIRS[count].unpack(octets)
    return pairs if version == _VERSION and not needed else None


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
