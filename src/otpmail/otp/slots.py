"""The slots of a record: which one is tried, which codes later ones have ended, and room for others. Pure."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from otpmail.code_record import STRANGERS, CodeRecord, Slot
from otpmail.model import Challenge
from otpmail.otp.refusals import refusal
from otpmail.store.challenges import NO_SCOPE, Attempt

MOST_LIVE = 3
"""How many challenges may be live before the oldest short one of strangers ends, and how many one device may have."""

_MOST_SLOTS = 64  # which only long codes and those of many devices reach
_MOST_WAITS = 64  # of slots whose code has ended: the oldest is forgotten, as a further session need not wait either
_MOST_ENDED = 16  # of codes that later ones have ended
_MOST_UNSENT = 16  # of codes whose latest mail was not sent

NO_CHALLENGE = Challenge(bytes(16), "", 0.0)
"""An attempt is compared with this where no challenge is live, so that it takes as long."""

_NO_SLOT = Slot(NO_SCOPE, challenge=NO_CHALLENGE)


def slot_of(record: CodeRecord, attempt: Attempt) -> Slot:
    """Return the slot that is tried: that of the device, else strangers'; of any device if its challenge is named."""
    found, slots = _NO_SLOT, record.slots
    ended = ended_by_later(slots) if len(slots) > MOST_LIVE else ()
    for slot in slots:
        if slot.scope != attempt.scope or slot in ended:
            continue
        if slot.challenge is not None and slot.challenge.id == attempt.only:
            return slot
        if slot.device == attempt.device or (slot.device == STRANGERS and found is _NO_SLOT):
            found = slot
    return found


def ended_by_later(slots: Sequence[Slot]) -> list[Slot]:
    """Return the slots whose challenges later ones have ended, in the order of that.

    The fourth of a device ends the oldest of its own. Any other that makes more than three live ends the oldest short
    one of strangers. Those whose latest mail was not sent take no part, so a call that mails nothing ends no code.
    """
    live, ended, short = 0, list[Slot](), list[Slot]()
    of_device = defaultdict[bytes, list[Slot]](list)
    for slot in slots:
        if slot.challenge is None or not slot.next_send:
            continue
        own = short if slot.device == STRANGERS else of_device[slot.device]
        rivals = own if len(own) >= MOST_LIVE else short
        if live >= MOST_LIVE and rivals:
            ended.append(rivals.pop(0))
        else:
            live += 1
        if slot.device != STRANGERS or not slot.challenge.is_long:
            own.append(slot)
    return ended


def with_room(slots: tuple[Slot, ...], device: bytes, now: float) -> tuple[Slot, ...]:
    """Return the slots with a place for one more of a device. Raises LimitExceeded where none gives way.

    With all places of devices taken, one of those with most loses its oldest. Strangers take no place of a device, and
    no device one of theirs. Three kinds of slots keep only their latest: those that only wait for their next mail,
    those of codes that later ones have ended, and those whose latest mail was not sent.
    """
    ended = ended_by_later(slots)
    waiting = [slot for slot in slots if slot.challenge is None]
    unsent = [slot for slot in slots if slot.challenge is not None and not slot.next_send]
    live = [slot for slot in slots if slot.challenge is not None and slot.next_send and slot not in ended]
    gone = waiting[: len(waiting) >= _MOST_WAITS]
    gone += ended[: len(ended) >= _MOST_ENDED] + unsent[: len(unsent) >= _MOST_UNSENT]
    if device == STRANGERS:
        ends = [one.expires for slot in live if slot.device == STRANGERS and (one := slot.challenge) and one.is_long]
        if len(ends) >= _MOST_SLOTS:
            raise refusal("slots", min(ends) - now)
    else:
        gone += _giving_way([slot for slot in live if slot.device != STRANGERS], device)
    return tuple([slot for slot in slots if slot not in gone]) if gone else slots


def _giving_way(live: list[Slot], device: bytes) -> list[Slot]:
    """Return which slot of these devices gives way to one more of a device, none where there is a place for it.

    It is the oldest of the devices with most of them. A device with as many as any loses its own, and one with too many
    does so anyway (`ended_by_later`).
    """
    counts = Counter([slot.device for slot in live])
    if len(live) < _MOST_SLOTS or counts[device] >= MOST_LIVE:
        return []
    most = max(counts.values())
    losers = {device} if counts[device] == most else {other for other, count in counts.items() if count == most}
    return [next(slot for slot in live if slot.device in losers)]
