"""Reads code records of versions 1 and 2, which had one for each purpose of an address.

A store that keeps records looks for one beside the record of an address, for as long as one may be there. Its content
moves to a slot and to strangers' lane (`otp.records.adopt`).
"""

import struct

from otpmail.code_record import EarlierRecord
from otpmail.errors import StoreError
from otpmail.model import Challenge

READ_SECONDS = 86_400.0
"""For how long after a start: no code lives longer."""

# Version, when the record ends; expiry, next send, id and attempts of the challenge, how many failures follow. In
# version 2: the mark of the call, how many mails of a replaced challenge follow, and the length of the key's id. The id
# stands before the failures, in version 1 at the end.
_RECORD_1 = struct.Struct("=Bddd16shH")
_RECORD_2 = struct.Struct("=Bddd16shH4sBB")
_NO_CHALLENGE = -1


def decode_earlier(octets: bytes) -> EarlierRecord:
    """Return what a record says, but for a challenge that was replaced. Raises StoreError for another version."""
    if octets[0] == 1:
        _, _, expires, next_send, challenge_id, attempts, count = _RECORD_1.unpack_from(octets)
        start, key = _RECORD_1.size, octets[_RECORD_1.size + count * 8 :]
    elif octets[0] == 2:
        _, _, expires, next_send, challenge_id, attempts, count, _, _, length = _RECORD_2.unpack_from(octets)
        start = _RECORD_2.size + length
        key = octets[_RECORD_2.size : start]
    else:
        raise StoreError(f"a code record in the store has version {octets[0]}; this program reads version 1, 2 and 3")
    challenge = None if attempts == _NO_CHALLENGE else Challenge(challenge_id, key.decode(), expires, attempts)
    return EarlierRecord(challenge, struct.unpack_from(f"={count}d", octets, start), next_send)
