"""The slots of a record: which one is tried, and room for others. Pure."""

from collections import Counter

from otpmail.code_record import STRANGERS, CodeRecord, Slot
from otpmail.model import Challenge
from otpmail.otp.refusals import refusal
from otpmail.store.challenges import NO_SCOPE, Attempt

MOST_LIVE = 3
"""How many challenges may be live before the oldest short one of strangers ends, and how many one device may have."""

_MOST_SLOTS = 64  # which only long codes and those of many devices reach
_MOST_WAITS = 64  # of slots whose code has ended: the oldest is forgotten, as a further session need not wait either

NO_CHALLENGE = Challenge(bytes(16), "", 0.0)
"""An attempt is compared with this where no challenge is live, so that it takes as long."""

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


def with_room(slots: tuple[Slot, ...], device: bytes, now: float) -> tuple[Slot, ...]:
    """Return the slots with a place for one more of a device. Raises LimitExceeded where none gives way.

    A device that has too many loses its oldest, and takes no place of others. With all places of devices taken, one of
    those with most loses its oldest. Else the oldest short one of strangers ends, if all together are too many.
    Strangers take no place of a device, and no device one of theirs. Of slots that only wait for their next mail the
    latest stay.
    """
    waiting = [slot for slot in slots if slot.challenge is None]
    if len(waiting) >= _MOST_WAITS:
        slots = tuple([known for known in slots if known is not waiting[0]])
    live = [slot for slot in slots if slot.challenge is not None]
    if len(live) < MOST_LIVE:
        return slots
    own = [slot for slot in live if slot.device == device]
    if device != STRANGERS and len(own) >= MOST_LIVE:
        return tuple([known for known in slots if known is not own[0]])
    rivals = [slot for slot in live if (slot.device == STRANGERS) is (device == STRANGERS)]
    is_full = len(rivals) >= _MOST_SLOTS
    if is_full and device != STRANGERS:
        oldest = _oldest_of_most(rivals, device)
        return tuple([known for known in slots if known is not oldest])
    for slot in live:
        if slot.device == STRANGERS and slot.challenge is not None and not slot.challenge.is_long:
            return tuple([known for known in slots if known is not slot])
    if not is_full:
        return slots
    ends = min([slot.challenge.expires for slot in rivals if slot.challenge is not None])
    raise refusal("slots", ends - now)


def _oldest_of_most(live: list[Slot], device: bytes) -> Slot:
    """Return the oldest slot of the devices with most of them; a device with as many as any loses its own."""
    counts = Counter([slot.device for slot in live])
    most = max(counts.values())
    losers = {device} if counts[device] == most else {other for other, count in counts.items() if count == most}
    return next(slot for slot in live if slot.device in losers)
