"""Encrypts what a store keeps of mails, so that a copy of the file is worth nothing without OTP_KEYS.

AES-256-GCM (NIST SP 800-38D). Its key is derived from one of OTP_KEYS by HKDF (RFC 5869) with a salt that each process
draws. Nonces are a counter, and can't repeat under one key whatever is written.
"""

import secrets
from collections.abc import Mapping
from functools import lru_cache
from itertools import count

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from otpmail.errors import StoreError

_VERSION = 1
_PURPOSE = b"otpmail.mail.v1"
_SALT = 16
_NONCE = 12
_MOST_KEYS = 64  # one for each process whose mails are still there


class Cipher:
    """Encrypts with the first of `keys`, by id, and decrypts with any. For one thread."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)
        self._nonces = count()
        key_id, salt = next(iter(self._keys)), secrets.token_bytes(_SALT)
        self._derived = lru_cache(_MOST_KEYS)(self._derive)
        self._key = self._derived(key_id, salt)
        name = key_id.encode()
        self._head = bytes((_VERSION, len(name))) + name + salt

    def __repr__(self) -> str:
        return f"<Cipher {len(self._keys)} keys>"

    def seal(self, octets: bytes, purpose: str, mail_id: str) -> bytes:
        """Encrypt `octets`, which `open` returns for the same purpose and mail alone."""
        nonce = next(self._nonces).to_bytes(_NONCE)
        return self._head + nonce + self._key.encrypt(nonce, octets, _associated(purpose, mail_id))

    def open(self, sealed: bytes, purpose: str, mail_id: str) -> bytes:
        """Decrypt what `seal` made. Raises StoreError where the key is not among ours, or the octets were changed."""
        if len(sealed) < 2 or sealed[0] != _VERSION:
            raise StoreError(f"a {purpose} in the store is encrypted in a way that this program does not know")
        head = 2 + sealed[1]
        key_id, salt = sealed[2:head].decode("ascii", "replace"), sealed[head : head + _SALT]
        if key_id not in self._keys:
            raise StoreError(f"a {purpose} in the store is encrypted with the key {key_id!r}, which OTP_KEYS lacks")
        nonce = sealed[head + _SALT : head + _SALT + _NONCE]
        try:
            return self._derived(key_id, salt).decrypt(
                nonce, sealed[head + _SALT + _NONCE :], _associated(purpose, mail_id)
            )
        except (InvalidTag, ValueError):
            raise StoreError(f"a {purpose} in the store was changed, or the key {key_id!r} was") from None

    def _derive(self, key_id: str, salt: bytes) -> AESGCM:
        return AESGCM(HKDF(SHA256(), 32, salt, _PURPOSE).derive(self._keys[key_id]))


def _associated(purpose: str, mail_id: str) -> bytes:
    return f"{purpose}\0{mail_id}".encode()
