"""Encodes what a store keeps as octets: code records, accepted and settled mails. Each begins with its format version.

Code records are packed by hand, since a million of them is the memory that a service needs; mails are MessagePack.
"""

import struct
from collections.abc import Sequence
from typing import Any

import msgpack

from otpmail.errors import StoreError
from otpmail.model import (
    AsciiHead,
    Challenge,
    CodeRecord,
    Envelope,
    IssuedCode,
    Mail,
    MailState,
    Priority,
    RecipientResult,
    Replaced,
)
from otpmail.store.base import Entry, Progress

_RECORD_VERSIONS = (1, 2)  # 1 knows neither the call of the latest mail nor a replaced challenge
_VERSIONS = (1, 2, 3)  # of mails: 1 has no labels, and 1 and 2 no deaths; the last is written
# The mail of a code in version 3 has the key of the code's record, or ends before it: each reader of 3 takes both.

# One packer for all, since each allocates a buffer of 256 KiB. It is empty between two calls, and not for two threads.
_packer = msgpack.Packer()

# Version, when the record ends; expiry, next send, id and attempts of the challenge, how many failures follow. From
# version 2 on: the mark of the call, how many mails of a replaced challenge follow, and the length of the key's id.
# Behind the head stand the key's id, failures and mails, and with mails the replaced challenge. Version 1 ends with the
# key's id.
_RECORD_1 = struct.Struct("=Bddd16shH")
_RECORD = struct.Struct("=Bddd16shH4sBB")
_REPLACED = struct.Struct("=16sdB")
_ENDS = struct.Struct("=xd")
_TIME = struct.Struct("=d")
_NO_CHALLENGE = -1  # attempts of a record without one
_NOTHING = Challenge(b"", "", 0.0, _NO_CHALLENGE)
_NONE_REPLACED = Replaced(_NOTHING, ())

_STATES = {state.value: state for state in MailState}
_VALUES = {state: value for value, state in _STATES.items()}  # a member's own `value` takes a call


def encode_record(record: CodeRecord) -> bytes:
    """Return a code record as octets. It takes as long with a challenge as without one, and so does `decode_record`."""
    challenge, replaced = record.challenge or _NOTHING, record.replaced or _NONE_REPLACED
    failures, mails, key = record.failures, replaced.mails, challenge.key_id.encode()
    head = _RECORD.pack(
        _RECORD_VERSIONS[-1],
        record.expires,
        challenge.expires,
        record.next_send,
        challenge.id,
        challenge.attempts,
        len(failures),
        record.call,
        len(mails),
        len(key),
    )
    times = (*failures, *mails)
    octets = head + key + (struct.pack(f"={len(times)}d", *times) if times else b"")
    return octets + _encode_replaced(replaced.challenge) if mails else octets


def decode_record(octets: bytes) -> CodeRecord:
    """Return the code record that `encode_record` wrote. Raises StoreError for another version."""
    if octets[0] != _RECORD_VERSIONS[-1]:
        return _decode_record_1(octets)
    head = _RECORD.unpack_from(octets)
    _, _, expires, next_send, challenge_id, attempts, count, call, count_mails, length = head
    start = _RECORD.size + length
    times = struct.unpack_from(f"={count + count_mails}d", octets, start) if count or count_mails else ()
    challenge = Challenge(challenge_id, octets[_RECORD.size : start].decode(), expires, attempts)
    replaced = None
    if count_mails:
        replaced = Replaced(_decode_replaced(octets, start + len(times) * _TIME.size), times[count:])
    return CodeRecord(None if attempts == _NO_CHALLENGE else challenge, times[:count], next_send, call, replaced)


def _decode_record_1(octets: bytes) -> CodeRecord:
    if octets[0] not in _RECORD_VERSIONS:
        raise _unknown("code record", octets[0], _RECORD_VERSIONS)
    _, _, expires, next_send, challenge_id, attempts, count = _RECORD_1.unpack_from(octets)
    failures = struct.unpack_from(f"={count}d", octets, _RECORD_1.size)
    key = octets[_RECORD_1.size + count * _TIME.size :].decode()
    challenge = Challenge(challenge_id, key, expires, attempts)
    return CodeRecord(None if attempts == _NO_CHALLENGE else challenge, failures, next_send)


def _encode_replaced(challenge: Challenge) -> bytes:
    key = challenge.key_id.encode()
    return _REPLACED.pack(challenge.id, challenge.expires, len(key)) + key


def _decode_replaced(octets: bytes, start: int) -> Challenge:
    challenge_id, expires, length = _REPLACED.unpack_from(octets, start)
    start += _REPLACED.size
    return Challenge(challenge_id, octets[start : start + length].decode(), expires)


def record_ends(octets: bytes) -> float:
    """Return when a code record ends, in seconds since the epoch, without decoding the rest."""
    ends: float = _ENDS.unpack_from(octets)[0]
    return ends


def encode_settled(mail: Mail, *, forgotten: float, request_ends: float, fingerprint: bytes) -> bytes:
    """Return a settled mail as octets, with when it and its request id are forgotten, and the request's fingerprint."""
    packed: bytes = _packer.pack((_VERSIONS[-1], _mail_fields(mail), forgotten, request_ends, fingerprint))
    return packed


def decode_settled(octets: bytes) -> tuple[Mail, float, float, bytes]:
    """Return what `encode_settled` was given. Raises StoreError for another version."""
    fields, forgotten, request_ends, fingerprint = _unpack("settled mail", octets)
    return _mail(fields), forgotten, request_ends, fingerprint


def encode_entry(entry: Entry) -> bytes:
    """Return an accepted mail as octets, content included."""
    envelope = entry.envelope
    return _pack(
        _mail_fields(entry.mail),
        _envelope_fields(envelope),
        int(entry.priority),
        entry.deadline,
        _progress_fields(entry.progress),
        entry.fingerprint,
    )


def decode_entry(octets: bytes) -> Entry:
    """Return the entry that `encode_entry` wrote. Raises StoreError for another version."""
    mail, envelope, priority, deadline, progress, fingerprint = _unpack("mail", octets)
    return Entry(
        mail=_mail(mail),
        envelope=_envelope(envelope, mail[0]),
        priority=Priority(priority),
        deadline=deadline,
        progress=_progress(progress),
        fingerprint=fingerprint,
    )


def encode_progress(progress: Progress) -> bytes:
    """Return a mail's progress as octets."""
    return _pack(*_progress_fields(progress))


def decode_progress(octets: bytes) -> Progress:
    """Return the progress that `encode_progress` wrote. Raises StoreError for another version."""
    return _progress(_unpack("progress", octets))


def _envelope_fields(envelope: Envelope) -> tuple[object, ...]:
    head = envelope.ascii_head
    fields = (envelope.sender, envelope.recipients, envelope.content, envelope.smtputf8)
    return fields if head is None else (*fields, head.octets, head.replaced)


def _envelope(fields: Sequence[Any], mail_id: str) -> Envelope:
    sender, recipients, content, smtputf8, *head = fields
    ascii_head = AsciiHead(head[0], head[1]) if head else None
    return Envelope(sender, tuple(recipients), content, smtputf8, ascii_head=ascii_head, id=mail_id)


def _pack(*fields: object) -> bytes:
    packed: bytes = _packer.pack((_VERSIONS[-1], *fields))
    return packed


def _unpack(what: str, octets: bytes) -> list[Any]:
    fields: list[Any]
    version, *fields = msgpack.unpackb(octets)
    if version not in _VERSIONS:
        raise _unknown(what, version, _VERSIONS)
    return fields


def _unknown(what: str, version: int, known: tuple[int, ...]) -> StoreError:
    versions = " and ".join(map(str, known))
    return StoreError(f"a {what} in the store has version {version}; this program reads version {versions}")


def _mail_fields(mail: Mail) -> tuple[object, ...]:
    issued = None
    if mail.issued is not None:
        code = mail.issued.challenge
        issued = (code.id, code.key_id, code.expires, code.attempts, mail.issued.next_send_time, mail.issued.record)
    return (
        mail.id,
        mail.caller,
        mail.message_id,
        mail.create_time,
        mail.request_id,
        _VALUES[mail.state],
        [(result.address, result.code, result.enhanced_code, result.reply) for result in mail.recipients],
        mail.attempts,
        mail.settle_time,
        issued,
        mail.labels,
    )


def _mail(fields: list[Any]) -> Mail:
    mail_id, caller, message_id, create_time, request_id, state, results, attempts, settle_time, issued, *labels = (
        fields
    )
    return Mail(
        mail_id,
        caller,
        message_id,
        create_time,
        request_id,
        _STATES[state],
        _results(results),
        attempts,
        settle_time,
        None if issued is None else IssuedCode(Challenge(*issued[:4]), *issued[4:]),
        tuple([(name, value) for name, value in labels[0]]) if labels else (),
    )


def _progress_fields(progress: Progress) -> tuple[object, ...]:
    return (
        progress.pending,
        [(result.address, result.code, result.enhanced_code, result.reply) for result in progress.results],
        progress.uncertain,
        progress.attempts,
        progress.losses,
        progress.copies,
        progress.begun,
        progress.deaths,
    )


def _progress(fields: list[Any]) -> Progress:
    pending, results, uncertain, attempts, losses, copies, *since_3 = fields
    begun, deaths = since_3 or (False, 0)
    return Progress(
        pending=tuple(pending),
        results=_results(results),
        uncertain=tuple(uncertain),
        attempts=attempts,
        losses=losses,
        copies=copies,
        begun=begun,
        deaths=deaths,
    )


def _results(fields: list[list[Any]]) -> tuple[RecipientResult, ...]:
    return tuple([RecipientResult(*result) for result in fields])
