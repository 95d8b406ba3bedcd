"""Encodes accepted and settled mails as octets, in MessagePack. Each begins with its format version.

`store.record_codec` has the records of codes.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgpack

from otpmail.errors import StoreError
from otpmail.model import (
    AsciiHead,
    Challenge,
    Envelope,
    IssuedCode,
    Mail,
    MailState,
    Priority,
    RecipientResult,
)
from otpmail.store.base import Entry, Progress
from otpmail.suppression import Suppression, SuppressionScope

_VERSIONS = (1, 2, 3, 4)  # of mails: 1 has no labels, and 1 and 2 no deaths
_WRITTEN, _SUPPRESSED = 3, 4  # readers of 3 know no suppressions, so 4 is written only where a recipient has one

# The mail of a code in version 3 has the key of the code's record, or ends before it: each reader of 3 takes both.
# Behind that stands until when it has used limits up, if any: earlier readers look no further.
# Behind the labels of an open one stands where it counts, if anywhere: earlier readers look no further than them.

# By so many bits the length of a code is above its attempts. Earlier readers of version 3 have no use for either.
_LENGTH = 16

# One packer for all, since each allocates a buffer of 256 KiB. It is empty between two calls, and not for two threads.
_packer = msgpack.Packer()

_STATES = {state.value: state for state in MailState}
_VALUES = {state: value for value, state in _STATES.items()}  # a member's own `value` takes a call


def encode_settled(mail: Mail, *, forgotten: float, request_ends: float, fingerprint: bytes) -> bytes:
    """Return a settled mail as octets, with when it and its request id are forgotten, and the request's fingerprint."""
    # fast path: each mail comes here, 0.3 us; held to `_version` by tests/store/test_codec.py
    version = _SUPPRESSED if [one for one in mail.recipients if one.suppression is not None] else _WRITTEN
    packed: bytes = _packer.pack((version, _mail_fields(mail), forgotten, request_ends, fingerprint))
    return packed


def decode_settled(octets: bytes) -> tuple[Mail, float, float, bytes]:
    """Return what `encode_settled` was given. Raises StoreError for another version."""
    fields, forgotten, request_ends, fingerprint = _unpack("settled mail", octets)
    return _mail(fields), forgotten, request_ends, fingerprint


def sender_of(octets: bytes) -> tuple[str, str]:
    """Return caller and request id of a settled mail, without decoding the rest. Raises ValueError for other octets."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(octets)
    unpacker.read_array_header()
    unpacker.skip()  # the version
    unpacker.read_array_header()
    unpacker.skip()  # the mail's id
    caller: str = unpacker.unpack()
    unpacker.skip()  # its Message-ID
    unpacker.skip()  # when it was accepted
    return caller, unpacker.unpack()


def encode_entry(entry: Entry) -> bytes:
    """Return an accepted mail as octets, content included."""
    envelope = entry.envelope
    return _pack(
        _version((*entry.mail.recipients, *entry.progress.results)),
        (*_mail_fields(entry.mail), *_counted_fields(entry.mail.issued)),
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
    return _pack(_version(progress.results), *_progress_fields(progress))


def decode_progress(octets: bytes) -> Progress:
    """Return the progress that `encode_progress` wrote. Raises StoreError for another version."""
    return _progress(_unpack("progress", octets))


def _envelope_fields(envelope: Envelope) -> tuple[object, ...]:
    head = envelope.ascii_head
    fields = (envelope.sender, envelope.recipients, envelope.content, envelope.smtputf8)
    if envelope.relay:
        octets, replaced = (None, 0) if head is None else (head.octets, head.replaced)
        return (*fields, octets, replaced, envelope.relay)
    return fields if head is None else (*fields, head.octets, head.replaced)


def _envelope(fields: Sequence[Any], mail_id: str) -> Envelope:
    sender, recipients, content, smtputf8, *more = fields
    ascii_head = AsciiHead(more[0], more[1]) if more and more[0] is not None else None
    relay = more[2] if len(more) > 2 else ""
    return Envelope(sender, tuple(recipients), content, smtputf8, ascii_head=ascii_head, id=mail_id, relay=relay)


def _version(results: Iterable[RecipientResult]) -> int:
    return _SUPPRESSED if any(result.suppression is not None for result in results) else _WRITTEN


def _pack(version: int, *fields: object) -> bytes:
    packed: bytes = _packer.pack((version, *fields))
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
    issued: tuple[object, ...] | None = None
    if mail.issued is not None:
        code = mail.issued.challenge
        attempts = code.attempts | code.length << _LENGTH
        issued = (code.id, code.key_id, code.expires, attempts, mail.issued.next_send_time, mail.issued.record)
        if mail.issued.spent_until:
            issued = (*issued, mail.issued.spent_until)
    return (
        mail.id,
        mail.caller,
        mail.message_id,
        mail.create_time,
        mail.request_id,
        _VALUES[mail.state],
        [
            (result.address, result.code, result.enhanced_code, result.reply)
            if result.suppression is None
            else _result_fields(result, result.suppression)
            for result in mail.recipients
        ],
        mail.attempts,
        mail.settle_time,
        issued,
        mail.labels,
    )


def _counted_fields(issued: IssuedCode | None) -> tuple[tuple[bytes, ...], ...]:
    """Return where the mail of a code counts beside its record: for a mailbox, and for limits over many addresses."""
    if issued is None or not (issued.mailbox or issued.counted):
        return ()
    return ((issued.mailbox, *issued.counted),)


def _mail(fields: list[Any]) -> Mail:
    mail_id, caller, message_id, create_time, request_id, state, results, attempts, settle_time, issued, *more = fields
    labels = more[0] if more else ()
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
        None if issued is None else _issued(issued, *more[1:]),
        tuple([(name, value) for name, value in labels]),
    )


def _issued(fields: Sequence[Any], counted: Sequence[bytes] = (b"",)) -> IssuedCode:
    challenge_id, key_id, expires, attempts, next_send, *more = fields
    record, spent_until = more[0] if more else b"", more[1] if more[1:] else 0.0
    challenge = Challenge(challenge_id, key_id, expires, attempts & (1 << _LENGTH) - 1, attempts >> _LENGTH)
    return IssuedCode(challenge, next_send, record, tuple(counted[1:]), counted[0], spent_until)


def _progress_fields(progress: Progress) -> tuple[object, ...]:
    return (
        progress.pending,
        [
            (result.address, result.code, result.enhanced_code, result.reply)
            if result.suppression is None
            else _result_fields(result, result.suppression)
            for result in progress.results
        ],
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


def _result_fields(result: RecipientResult, found: Suppression) -> tuple[object, ...]:
    suppression = found.reason, found.since, found.until, found.scope.value
    return result.address, result.code, result.enhanced_code, result.reply, suppression


def _results(fields: list[list[Any]]) -> tuple[RecipientResult, ...]:
    return tuple([RecipientResult(*result[:4], *map(_suppression, result[4:])) for result in fields])


def _suppression(fields: list[Any]) -> Suppression:
    reason, since, until, scope = fields
    return Suppression(reason, since, until, SuppressionScope(scope))
