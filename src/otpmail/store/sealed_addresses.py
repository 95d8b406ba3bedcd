"""Encrypts what a store on disk keeps of addresses, and makes the keys of its digests."""

from collections.abc import Mapping

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from otpmail.errors import StoreError
from otpmail.store.cipher import Cipher

_DIGESTS = b"otpmail.address.v1"
_PURPOSE = "record of an address"


class SealedAddresses:
    """Encrypts records for a store on disk with the first of `keys`, and decrypts with any. For one thread at a time.

    `digest_keys` are the keys of an `AddressTable`, derived from the same ones by HKDF (RFC 5869).
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self.digest_keys = tuple([HKDF(SHA256(), 32, None, _DIGESTS).derive(key) for key in keys.values()])
        self._cipher = Cipher(keys)

    def __repr__(self) -> str:
        return f"<SealedAddresses {self._cipher!r}>"

    def seal(self, name: bytes, octets: bytes) -> bytes:
        """Encrypt the octets of a record, which `open` returns for the same key alone."""
        return self._cipher.seal(octets, _PURPOSE, name.hex())

    def open(self, name: bytes, sealed: bytes) -> bytes:
        """Decrypt what `seal` made; empty where its key is not among ours, or it was changed."""
        try:
            return self._cipher.open(sealed, _PURPOSE, name.hex())
        except StoreError:
            return b""
