"""A record after its challenges ended unused: a caller revoked them, or a mail was not sent or was refused. Pure."""

from dataclasses import replace

from otpmail.code_record import CALL, NO_CALL, CodeRecord, Lane, Replaced, Slot
from otpmail.model import Sending
from otpmail.otp.records import kept, with_lane, with_slot

TakenBack = tuple[CodeRecord | None, float | None]
"""A record without a mail, and the mail by the next send that went with it: None where the record did not know it."""


def voided(record: CodeRecord, scope: bytes, challenge_id: bytes | None) -> CodeRecord | None:
    """Return the record without the live challenges of a scope, or without the one of an id there."""
    slots = []
    for slot in record.slots:
        challenge = slot.challenge
        is_it = slot.scope == scope and challenge is not None and challenge_id in (None, challenge.id)
        slots.append(_ended(slot) if is_it else slot)
    return kept(replace(record, slots=tuple(slots)))


def unsent(record: CodeRecord, sending: Sending) -> TakenBack:
    """Return the record as if a mail had not been sent, whatever has become of its challenge since.

    A slot in which another challenge has replaced that one stays as it is: other mails may have brought its code.
    """
    slot, mail = _slot_with(record, sending), sending.next_send
    after = slot if slot is None or _is_replaced(slot, sending) else _without(slot, mail)
    return _uncounted(record, slot, after, mail)


def withdrawn(record: CodeRecord, call: bytes) -> TakenBack:
    """Return the record as if the latest mail of a slot had not been sent, by the mark of its call."""
    for slot in () if call == NO_CALL else record.slots:
        if slot.call == call:
            return _uncounted(record, slot, _without(slot, slot.next_send), slot.next_send)
    return record, None


def refused(record: CodeRecord, sending: Sending) -> CodeRecord | None:
    """Return the record without a challenge whose mail was refused, which goes on counting as a mail.

    A challenge that another mail brings stays live, and so does the one that the refused one had replaced: else a
    stranger's call that is refused would end an owner's code. Its own call has made a challenge, by the end of its id.
    """
    slot, mail = _slot_with(record, sending), sending.next_send
    if slot is None:
        return record
    if _is_replaced(slot, sending):
        after = replace(slot, replaced=None)
    else:
        after = _without(slot, mail)
        is_it = after.challenge is not None and after.challenge.id == sending.challenge.id
        if is_it and slot.next_send == mail and slot.call == sending.challenge.id[CALL]:
            after = _ended(after)
    return kept(replace(record, slots=with_slot(record.slots, slot, after)))


def _ended(slot: Slot) -> Slot:
    return replace(slot, challenge=None, replaced=None)


def _slot_with(record: CodeRecord, sending: Sending) -> Slot | None:
    """Return the slot of a mail: its challenge is live there, was replaced, or has ended with that mail as the last."""
    found: Slot | None = None
    for slot in record.slots:
        if slot.challenge is not None and slot.challenge.id == sending.challenge.id:
            return slot
        is_last = slot.challenge is None and slot.next_send == sending.next_send
        if found is None and (is_last or _is_replaced(slot, sending)):
            found = slot
    return found


def _is_replaced(slot: Slot, sending: Sending) -> bool:
    """Whether another challenge has replaced the mail's; one with the same id, of a repeated call, is no other."""
    challenge_id = sending.challenge.id
    is_live = slot.challenge is not None and slot.challenge.id == challenge_id
    return not is_live and slot.replaced is not None and slot.replaced.challenge.id == challenge_id


def _without(slot: Slot, mail: float) -> Slot:
    """Return a slot as if a mail of it, by the next send that went with it, had not been sent."""
    challenge, replaced, is_latest = slot.challenge, slot.replaced, slot.next_send in (mail, 0.0)
    if replaced is not None and challenge is not None and mail in replaced.mails:
        place = replaced.mails.index(mail)
        mails = replaced.mails[:place] + replaced.mails[place + 1 :]
        if mails:
            replaced = Replaced(replaced.challenge, mails)
        else:
            challenge, replaced = replace(replaced.challenge, attempts=challenge.attempts), None
            is_latest = True
    if is_latest:  # 0 since the latest mail was not sent either
        return Slot(slot.scope, slot.device, challenge, replaced=replaced)
    return Slot(slot.scope, slot.device, challenge, slot.next_send, slot.call, replaced)


def _uncounted(record: CodeRecord, slot: Slot | None, after: Slot | None, mail: float) -> TakenBack:
    """Return the record with `after` in place of the mail's slot, and without the mail in the lane where it counts.

    That is the lane of the slot's device, or strangers' where too many devices had one.
    """
    slots, lanes = record.slots, record.lanes
    is_known = after != slot
    if slot is not None and after is not None:
        slots = with_slot(slots, slot, after)
    own = [lane for lane in lanes if slot is not None and lane.device == slot.device]
    for lane in (*own, *lanes):
        if mail in lane.sends:
            place = lane.sends.index(mail)
            lanes = with_lane(lanes, Lane(lane.device, lane.failures, lane.sends[:place] + lane.sends[place + 1 :]))
            is_known = True
            break
    return kept(CodeRecord(slots, lanes, record.answers)), mail if is_known else None
