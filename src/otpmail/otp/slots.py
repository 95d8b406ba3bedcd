"""The slots of a record: which is tried, what becomes of one whose mail was not sent, and room for others. Pure."""

from dataclasses import replace

from otpmail.model import STRANGERS, Challenge, CodeRecord, Lane, Replaced, Slot
from otpmail.otp.records import kept, lane_of, with_lane, with_slot
from otpmail.otp.refusals import refusal
from otpmail.store.challenges import NO_SCOPE, Attempt

MOST_LIVE = 3
"""How many challenges may be live before the oldest short one of strangers ends."""

_MOST_SLOTS = 64  # which only long codes and those of devices reach

NO_CHALLENGE = Challenge(bytes(16), "", 0.0)
"""What an attempt is compared with where no challenge is live, which is as much work."""

_NO_SLOT = Slot(NO_SCOPE, challenge=NO_CHALLENGE)


def slot_of(record: CodeRecord, attempt: Attempt) -> Slot:
    """Return the slot that is tried: that of the device, else strangers'; of any device if its challenge is named."""
    found = _NO_SLOT
    for slot in record.slots:
        if slot.scope != attempt.scope:
            continue
        if slot.challenge is not None and slot.challenge.id == attempt.only:
            return slot
        if slot.device == attempt.device or (slot.device == STRANGERS and found is _NO_SLOT):
            found = slot
    return found


def slot_with(record: CodeRecord | None, challenge_id: bytes) -> Slot | None:
    """Return the slot with that live challenge."""
    for slot in () if record is None else record.slots:
        if slot.challenge is not None and slot.challenge.id == challenge_id:
            return slot
    return None


def unsent(record: CodeRecord, slot: Slot, mail: float, *, counts: bool) -> CodeRecord | None:
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


def ended(slot: Slot, other: Slot) -> Slot:
    """Return the slot, without its challenge if it is of the same scope and device as `other`."""
    is_it = slot.scope == other.scope and slot.device == other.device
    return replace(slot, challenge=None, replaced=None) if is_it else slot


def with_room(slots: tuple[Slot, ...], now: float) -> tuple[Slot, ...]:
    """Return the slots without the oldest short one of strangers, if there are too many. Raises LimitExceeded."""
    live = [slot for slot in slots if slot.challenge is not None]
    if len(live) < MOST_LIVE:
        return slots
    for slot in live:
        if slot.device == STRANGERS and slot.challenge is not None and not slot.challenge.is_long:
            return tuple([known for known in slots if known is not slot])
    if len(live) < _MOST_SLOTS:
        return slots
    ends = min([slot.challenge.expires for slot in live if slot.challenge is not None])
    raise refusal("slots", ends - now)
