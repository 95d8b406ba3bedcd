"""Settled mails as octets in a file: many together in one encrypted pack, or one mail alone."""

import struct
import zlib
from collections.abc import Sequence

from otpmail.store.cipher import Cipher

_LEVEL = 1  # of zlib: 3 us a mail, and a fifth of the size
_ALONE = "settled mail"
_PACKED = "settled mails"


class Packs:
    """Encrypts with `cipher`. A pack is bound to its `place`, one mail alone to its id."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher

    def __repr__(self) -> str:
        return f"<Packs {self._cipher!r}>"

    def seal_one(self, mail_id: str, octets: bytes) -> bytes:
        """Return one mail as a row keeps it."""
        return self._cipher.seal(octets, _ALONE, mail_id)

    def seal(self, place: int, mails: Sequence[bytes]) -> bytes:
        """Return several mails as a row keeps them whose first place is `place`."""
        lengths = struct.pack(f"={len(mails)}I", *map(len, mails))
        return self._cipher.seal(zlib.compress(lengths + b"".join(mails), _LEVEL), _PACKED, str(place))

    def open(self, place: int, mails: int, mail_id: str | None, sealed: bytes) -> list[bytes]:
        """Return the mails of a row in their order; `mail_id` is that of one mail alone. Raises StoreError."""
        if mail_id is not None:
            return [self._cipher.open(sealed, _ALONE, mail_id)]
        octets = zlib.decompress(self._cipher.open(sealed, _PACKED, str(place)))
        lengths = struct.unpack_from(f"={mails}I", octets)
        start, found = struct.calcsize(f"={mails}I"), []
        for length in lengths:
            found.append(octets[start : start + length])
            start += length
        return found
