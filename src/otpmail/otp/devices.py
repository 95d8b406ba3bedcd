"""Device tokens: a browser or device with one is known at an address, and has a lane of its own there.

A token is 39 characters of base64url: a version, a random name of the device, the time of a right code, and a digest.
The time is in seconds modulo 2^32, so that it begins anew in 2106.
That is the first 16 octets of HMAC-SHA256 (RFC 2104) over the others and the key of the record. The key of the digest
is derived from OTP_KEYS, so a token is good until that key is dropped, or for 180 days. OWASP calls it a device cookie.
"""

import base64
import binascii
import hmac
import secrets
import struct
from collections.abc import Sequence

from otpmail.code_record import STRANGERS
from otpmail.errors import InvalidArgument

LIFE_SECONDS = 180 * 86_400
MAX_TOKEN = 256

_VERSION = 1
_BODY = struct.Struct(">B8sI")
_MAC_OCTETS = 16
_CHARACTERS = 39
_TIMES = 1 << 32
_CLOCKS = 60  # seconds that another replica's clock may be ahead


def new_device() -> bytes:
    """Return a name for a device: 64 random bits."""
    return secrets.token_bytes(len(STRANGERS))


class DeviceTokens:
    """Makes tokens with the first of `keys`, and knows those of any."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def __repr__(self) -> str:
        return f"<DeviceTokens of {len(self._keys)} keys>"

    def make(self, record: bytes, device: bytes, time: float) -> str:
        """Return the token of a device for the codes of a record, from that time on."""
        body = _BODY.pack(_VERSION, device, int(time) % _TIMES)
        return base64.urlsafe_b64encode(body + _mac(self._keys[0], record, body)).decode().rstrip("=")

    def read(self, token: str, record: bytes, now: float) -> bytes:
        """Return the device of a token; that of strangers for one that is not ours, or is no longer good.

        Raises InvalidArgument for a text that is too long to be one.
        """
        if len(token) > MAX_TOKEN:
            raise InvalidArgument("device_token", f"is longer than {MAX_TOKEN} characters")
        if len(token) != _CHARACTERS:
            return STRANGERS
        try:
            octets = base64.b64decode(token + "=", altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            return STRANGERS
        body, mac = octets[: _BODY.size], octets[_BODY.size :]
        is_ours = False
        for key in self._keys:
            is_ours = hmac.compare_digest(_mac(key, record, body), mac) or is_ours
        version, device, time = _BODY.unpack(body)
        is_good = is_ours and version == _VERSION and (now - time + _CLOCKS) % _TIMES < LIFE_SECONDS + _CLOCKS
        return device if is_good else STRANGERS


def _mac(key: bytes, record: bytes, body: bytes) -> bytes:
    return hmac.digest(key, record + body, "sha256")[:_MAC_OCTETS]
