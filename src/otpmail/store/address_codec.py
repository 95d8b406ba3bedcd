"""Encodes the record of an address as octets: some tens beside the reason, since there may be a million."""

import hashlib
import struct

from otpmail.address import AS_KEY, SPELLING_OCTETS
from otpmail.errors import StoreError
from otpmail.suppression import AddressRecord, Suppression, SuppressionScope

MOST_REASON = 90
"""Octets of a reason that are kept; a longer one ends with an ellipsis."""

_VERSION = 1
_HEAD = struct.Struct("<BBB")  # version, strikes, and what follows
_PART = struct.Struct("<ddB")  # since, until, octets of the reason
_REPORTED, _REFUSED, _COMPLAINED, _MARKED, _AS_KEY, _SPELT = 1, 2, 4, 8, 16, 32
_MARK_OCTETS = 4
_ADDRESS = "\0"  # stands in a reason for the address itself, which is not kept
_ELLIPSIS = "…".encode()


def mark_of(caller: str) -> bytes:
    """Return a few octets that tell callers apart, for the share of each. Two with the same ones share one."""
    return hashlib.blake2b(caller.encode(), digest_size=_MARK_OCTETS).digest()


def mark_in(octets: bytes) -> bytes:
    """Return the mark of the caller whose address it is; empty in octets of a version that had none."""
    return octets[-_MARK_OCTETS:] if octets[2] & _MARKED else b""


def encode_address(record: AddressRecord, address: str, mark: bytes = b"") -> bytes:
    """Return the record of an address as octets, without the address, and with the mark of its caller.

    The spellings and the mark come last. Earlier versions do not look there, or read the first spelling alone.
    """
    parts = [(record.refused, _REFUSED), (record.complained, _COMPLAINED)]
    flags = sum(flag for part, flag in parts if part is not None)
    flags += _REPORTED * record.is_reported + _MARKED * bool(mark)
    is_as_key = record.spellings == (AS_KEY,)
    spellings = b"" if is_as_key else b"".join(record.spellings)
    flags += _SPELT * bool(spellings) + _AS_KEY * is_as_key
    octets = [_HEAD.pack(_VERSION, record.strikes, flags)]
    for part, _ in parts:
        if part is not None:
            reason = _short(part.reason.replace(address, _ADDRESS))
            octets += (_PART.pack(part.since, part.until, len(reason)), reason)
    return b"".join(octets) + spellings + mark


def decode_address(octets: bytes, address: str = "") -> AddressRecord:
    """Return what `encode_address` was given; `address` is put back where a reason has named it.

    Raises StoreError for another version.
    """
    version, strikes, flags = _HEAD.unpack_from(octets)
    if version != _VERSION:
        raise StoreError(f"an address in the store has version {version}; this program reads version {_VERSION}")
    at, parts = _HEAD.size, list[Suppression | None]()
    for flag, scope in ((_REFUSED, SuppressionScope.ALL), (_COMPLAINED, SuppressionScope.BULK)):
        if not flags & flag:
            parts.append(None)
            continue
        since, until, length = _PART.unpack_from(octets, at)
        start = at + _PART.size
        at = start + length
        parts.append(Suppression(octets[start:at].decode().replace(_ADDRESS, address), since, until, scope))
    end = len(octets) - _MARK_OCTETS * bool(flags & _MARKED)
    starts = range(at, end, SPELLING_OCTETS) if flags & _SPELT else ()
    spellings = tuple(octets[start : start + SPELLING_OCTETS] for start in starts) or (AS_KEY,) * bool(flags & _AS_KEY)
    return AddressRecord(parts[0], strikes, bool(flags & _REPORTED), parts[1], spellings)


def _short(reason: str) -> bytes:
    octets = reason.encode("utf-8", "replace")
    if len(octets) <= MOST_REASON:
        return octets
    return octets[: MOST_REASON - len(_ELLIPSIS)].decode("utf-8", "ignore").encode() + _ELLIPSIS
