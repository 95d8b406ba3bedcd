"""A record after its challenges ended unused: a caller revoked them, or a mail was not sent or was refused. Pure."""

from dataclasses import replace

from otpmail.code_record import NO_CALL, CodeRecord, Lane, Replaced, Slot
from otpmail.model import Sending
from otpmail.otp.records import kept, lane_of, with_lane, with_slot


def voided(record: CodeRecord, scope: bytes, challenge_id: bytes | None) -> CodeRecord | None:
    """Return the record without the live challenges of a scope, or without the one of an id there."""
    slots = []
    for slot in record.slots:
        challenge = slot.challenge
        is_it = slot.scope == scope and challenge is not None and challenge_id in (None, challenge.id)
        slots.append(_ended(slot) if is_it else slot)
    return kept(replace(record, slots=tuple(slots)))


def unsent(record: CodeRecord, sending: Sending) -> CodeRecord | None:
    """Return the record as if a mail had not been sent."""
    slot = _slot_with(record, sending.challenge.id)
    return record if slot is None else _without_mail(record, slot, sending.next_send, counts=False)


def withdrawn(record: CodeRecord, call: bytes) -> CodeRecord | None:
    """Return the record as if the latest mail of a slot had not been sent, by the mark of its call."""
    for slot in () if call == NO_CALL else record.slots:
        if slot.call == call:
            return _without_mail(record, slot, slot.next_send, counts=False)
    return record


def refused(record: CodeRecord, sending: Sending) -> CodeRecord | None:
    """Return the record without a challenge whose mail was refused, which goes on counting as a mail."""
    slot = _slot_with(record, sending.challenge.id)
    if slot is None:
        return record
    after = _without_mail(record, slot, sending.next_send, counts=True)
    if after is None:
        return None
    scope, device = slot.scope, slot.device
    slots = [_ended(one) if one.scope == scope and one.device == device else one for one in after.slots]
    return kept(replace(after, slots=tuple(slots)))


def _ended(slot: Slot) -> Slot:
    return replace(slot, challenge=None, replaced=None)


def _slot_with(record: CodeRecord, challenge_id: bytes) -> Slot | None:
    """Return the slot with that live challenge."""
    for slot in record.slots:
        if slot.challenge is not None and slot.challenge.id == challenge_id:
            return slot
    return None


def _without_mail(record: CodeRecord, slot: Slot, mail: float, *, counts: bool) -> CodeRecord | None:
    """Return the record as if a mail of a slot, by the next send that went with it, had not been sent."""
    challenge, replaced, is_latest = slot.challenge, slot.replaced, slot.next_send in (mail, 0.0)
    if replaced is not None and challenge is not None and mail in replaced.mails:
        place = replaced.mails.index(mail)
        mails = replaced.mails[:place] + replaced.mails[place + 1 :]
        if mails:
            replaced = Replaced(replaced.challenge, mails)
        else:
            challenge, replaced = replace(replaced.challenge, attempts=challenge.attempts), None
            is_latest = True
    after = Slot(slot.scope, slot.device, challenge, slot.next_send, slot.call, replaced)
    if is_latest:  # 0 since the latest mail was not sent either
        after = Slot(slot.scope, slot.device, challenge, replaced=replaced)
    lanes, lane = record.lanes, lane_of(record, slot.device)
    if not counts and mail in lane.sends:
        place = lane.sends.index(mail)
        lanes = with_lane(lanes, Lane(lane.device, lane.failures, lane.sends[:place] + lane.sends[place + 1 :]))
    return kept(CodeRecord(with_slot(record.slots, slot, after), lanes, record.answers))
