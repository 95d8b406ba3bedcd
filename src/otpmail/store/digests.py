"""Digests with a key, in place of names that a store must find again and must not hold.

The input is a digest already, of an address with its caller and purpose, or of a request. Without the key somebody with
a dump could test whether a known address is in it. Keys are derived from OTP_KEYS by HKDF (RFC 5869).
"""

import hmac
from collections.abc import Mapping

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_PURPOSE = b"otpmail.digest.v1"
_RECORD = b"code record\0"
_REQUEST = b"request\0"
_RECORD_OCTETS = 16
_MARK = b"key mark\0"
_MARK_OCTETS = 8
_KEYED = b"\x02"  # begins a keyed fingerprint, which is longer by it than a plain SHA-256
_KEYED_OCTETS = 33
_KEPT = slice(1, 9)


class Digests:
    """HMAC-SHA256 (RFC 2104) with a key for each of `keys`. The first one writes, and any may be found."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = tuple([HKDF(SHA256(), 32, None, _PURPOSE).derive(key) for key in keys.values()])

    def __repr__(self) -> str:
        return f"<Digests of {len(self._keys)} keys>"

    @property
    def marks(self) -> bytes:
        """A mark of each key, one behind the other: processes with the same key have the same one. None tells a key."""
        return b"".join([hmac.digest(key, _MARK, "sha256")[:_MARK_OCTETS] for key in self._keys])

    def record_names(self, record_key: bytes) -> list[bytes]:
        """Return the names of the record of an address's codes, the present one first."""
        text = _RECORD + record_key
        return [hmac.digest(key, text, "sha256")[:_RECORD_OCTETS] for key in self._keys]

    def fingerprints(self, fingerprint: bytes) -> list[bytes]:
        """Return the forms that a request's fingerprint may have in the store, the present one first.

        A fingerprint that has such a form is returned unchanged, and so is an empty one.
        """
        if not fingerprint or is_keyed(fingerprint):
            return [fingerprint]
        text = _REQUEST + fingerprint
        return [_KEYED + hmac.digest(key, text, "sha256") for key in self._keys]

    def kept_fingerprints(self, fingerprint: bytes) -> list[bytes]:
        """Return the part of each of `fingerprints` that a file keeps: 64 bits, too many to agree by chance."""
        return [one[_KEPT] for one in self.fingerprints(fingerprint)]


def have_a_key_in_common(marks: bytes, others: bytes) -> bool:
    """Whether a key is among those of both `Digests.marks`."""
    return not _separate(marks).isdisjoint(_separate(others))


def _separate(marks: bytes) -> set[bytes]:
    return {marks[start : start + _MARK_OCTETS] for start in range(0, len(marks), _MARK_OCTETS)}


def is_keyed(fingerprint: bytes) -> bool:
    """Whether a fingerprint is one of `Digests`, and not the plain digest of a request."""
    return len(fingerprint) == _KEYED_OCTETS and fingerprint[:1] == _KEYED
