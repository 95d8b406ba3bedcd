"""Encodes the record of an address's codes as octets, packed by hand: a million of them is the memory that is needed.

Each begins with its format version. Versions 1 and 2 had a record for each purpose of an address.
"""

import struct

from otpmail.code_record import Answer, CodeRecord, Lane, Replaced, Slot
from otpmail.errors import StoreError
from otpmail.model import DAY, Challenge, Check, CheckResult

_VERSION = 3
_FEW_SENDS = 3

# Version, when the record ends, when it may be forgotten without room; how many slots, lanes and answers follow.
_HEAD = struct.Struct("=BddBBB")
_ENDS = struct.Struct("=xdd")
# Scope, device, next send, mark of the call. Id, expiry, attempts and length of the challenge. The lengths of its key's
# id and of the mails of a replaced challenge. These follow, and the replaced challenge if there are mails.
_SLOT = struct.Struct("=8s8sd4s16sdhBBB")
_REPLACED = struct.Struct("=16sdBB")
_LANE = struct.Struct("=8sHH")
_ANSWER = struct.Struct("=8sdBhdd8s")
_NO_CHALLENGE = -1  # attempts of a slot without one
_MOST = 8  # by so many bits the attempts that a challenge has are above those that were made
_NOTHING = Challenge(b"", "", 0.0, _NO_CHALLENGE)
_NONE_REPLACED = Replaced(_NOTHING, ())
_NO_TIME = -1.0
_FREE = b"\x01"  # in place of the device, which only a right code has: of an answer that cost nothing
_RESULTS = tuple(CheckResult)
_PLACES = {result: place for place, result in enumerate(_RESULTS)}

_SOME_SLOT = Slot(bytes(8), bytes(8), Challenge(bytes(16), "k1", 0.0))


def ends_of(record: CodeRecord) -> tuple[float, float]:
    """Return when a record may be dropped: since it has no effect any more, and where a store has no room.

    Without room the mails of an address are forgotten that has had few of them in a day.
    """
    ends = 0.0
    for slot in record.slots:
        ends = max(ends, slot.next_send, slot.challenge.expires if slot.challenge is not None else 0.0)
    needed = ends
    for answer in record.answers:
        ends = max(ends, answer.until)
        needed = max(needed, 0.0 if answer.is_free else answer.until)
    for lane in record.lanes:
        failed = lane.failures[-1] + DAY if lane.failures else 0.0
        sent = lane.sends[-1] + DAY if lane.sends else 0.0
        needed = max(needed, failed, sent if len(lane.sends) > _FEW_SENDS else 0.0)
        ends = max(ends, failed, sent)
    return ends, needed


def encode_record(record: CodeRecord) -> bytes:
    """Return a record as octets. It takes as long with a slot as without any, and so does `decode_record`."""
    ends, needed = ends_of(record)
    slots = [_encode_slot(slot) for slot in record.slots or (_SOME_SLOT,)]
    parts = [_HEAD.pack(_VERSION, ends, needed, len(record.slots), len(record.lanes), len(record.answers))]
    if record.slots:
        parts += slots
    for lane in record.lanes:
        failures, sends = lane.failures, lane.sends
        parts.append(_LANE.pack(lane.device, len(failures), len(sends)))
        parts.append(struct.pack(f"={len(failures) + len(sends)}d", *failures, *sends))
    for answer in record.answers:
        check = answer.check
        retry = _NO_TIME if check.retry_time is None else check.retry_time
        device = _FREE if answer.is_free else check.device
        said = (_PLACES[check.result], check.attempts_left, retry, check.time, device)
        parts.append(_ANSWER.pack(answer.request, answer.until, *said))
    return b"".join(parts)


def decode_record(octets: bytes) -> CodeRecord:
    """Return the record that `encode_record` wrote. Raises StoreError for another version."""
    version, _, _, count_slots, count_lanes, count_answers = _HEAD.unpack_from(octets)
    if version != _VERSION:
        raise StoreError(f"a code record in the store has version {version}; this program reads version {_VERSION}")
    slots, at = [], _HEAD.size
    if not count_slots:
        _decode_slot(_SOME_OCTETS, 0)
    for _ in range(count_slots):
        slot, at = _decode_slot(octets, at)
        slots.append(slot)
    lanes = []
    for _ in range(count_lanes):
        device, failures, sends = _LANE.unpack_from(octets, at)
        at += _LANE.size
        times = struct.unpack_from(f"={failures + sends}d", octets, at)
        at += 8 * len(times)
        lanes.append(Lane(device, times[:failures], times[failures:]))
    answers = []
    for place in range(count_answers):
        request, until, result, left, retry, time, device = _ANSWER.unpack_from(octets, at + place * _ANSWER.size)
        check = Check(_RESULTS[result], left, None if retry == _NO_TIME else retry, device if time else b"", time)
        answers.append(Answer(request, check, until, not time and device.startswith(_FREE)))
    return CodeRecord(tuple(slots), tuple(lanes), tuple(answers))


def record_ends(octets: bytes) -> float:
    """Return when a record ends, in seconds since the epoch, without decoding the rest."""
    ends: float = _ENDS.unpack_from(octets)[0]
    return ends


def record_needed(octets: bytes) -> float:
    """Return from when on a record may be forgotten where there is no room, in seconds since the epoch."""
    needed: float = _ENDS.unpack_from(octets)[1]
    return needed


def _encode_slot(slot: Slot) -> bytes:
    challenge, replaced = slot.challenge or _NOTHING, slot.replaced or _NONE_REPLACED
    key, mails = challenge.key_id.encode(), replaced.mails
    octets = (
        _SLOT.pack(
            slot.scope,
            slot.device,
            slot.next_send,
            slot.call,
            challenge.id,
            challenge.expires,
            challenge.attempts | challenge.most << _MOST,
            challenge.length,
            len(key),
            len(mails),
        )
        + key
    )
    if not mails:
        return octets
    older = replaced.challenge
    older_key = older.key_id.encode()
    head = _REPLACED.pack(older.id, older.expires, older.length, len(older_key))
    return octets + struct.pack(f"={len(mails)}d", *mails) + head + older_key


def _decode_slot(octets: bytes, at: int) -> tuple[Slot, int]:
    """Return the slot that begins there, and where it ends."""
    scope, device, next_send, call, challenge_id, expires, attempts, length, key, mails = _SLOT.unpack_from(octets, at)
    at += _SLOT.size
    key_id, most = octets[at : at + key].decode(), max(attempts, 0) >> _MOST
    challenge = Challenge(challenge_id, key_id, expires, attempts & (1 << _MOST) - 1, length, most)
    at += key
    replaced = None
    if mails:
        times = struct.unpack_from(f"={mails}d", octets, at)
        at += 8 * mails
        older_id, expires, length, key = _REPLACED.unpack_from(octets, at)
        at += _REPLACED.size
        # A challenge that replaces another has as many attempts (otp.policy).
        replaced = Replaced(Challenge(older_id, octets[at : at + key].decode(), expires, 0, length, most), times)
        at += key
    return Slot(scope, device, None if attempts == _NO_CHALLENGE else challenge, next_send, call, replaced), at


_SOME_OCTETS = _encode_slot(_SOME_SLOT)
