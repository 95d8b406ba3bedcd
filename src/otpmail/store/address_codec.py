"""Encodes what is known of an address as octets: some tens of them beside the reason, since there may be a million."""

import struct

from otpmail.errors import StoreError
from otpmail.suppression import AddressRecord, Suppression, SuppressionScope

MOST_REASON = 100
"""Octets of a reason that are kept; a longer one ends with an ellipsis."""

_VERSION = 1
_HEAD = struct.Struct("<BBB")  # version, strikes, and what follows
_PART = struct.Struct("<ddB")  # since, until, octets of the reason
_REPORTED, _REFUSED, _COMPLAINED = 1, 2, 4
_ADDRESS = "\0"  # stands in a reason for the address itself, which is not kept
_ELLIPSIS = "…".encode()


def encode_address(record: AddressRecord, address: str) -> bytes:
    """Return what is known of an address as octets, without the address."""
    parts = [(record.refused, _REFUSED), (record.complained, _COMPLAINED)]
    flags = _REPORTED * record.is_reported + sum(flag for part, flag in parts if part is not None)
    octets = [_HEAD.pack(_VERSION, record.strikes, flags)]
    for part, _ in parts:
        if part is not None:
            reason = _short(part.reason.replace(address, _ADDRESS))
            octets += (_PART.pack(part.since, part.until, len(reason)), reason)
    return b"".join(octets)


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
    return AddressRecord(parts[0], strikes, bool(flags & _REPORTED), parts[1])


def _short(reason: str) -> bytes:
    octets = reason.encode("utf-8", "replace")
    if len(octets) <= MOST_REASON:
        return octets
    return octets[: MOST_REASON - len(_ELLIPSIS)].decode("utf-8", "ignore").encode() + _ELLIPSIS
