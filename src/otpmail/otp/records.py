"""Reads a record of codes, and replaces one part of it: pure functions for the rules."""

from dataclasses import replace

from otpmail.code_record import RELEASED, STRANGERS, Answer, CodeRecord, EarlierRecord, Lane, Slot
from otpmail.model import DAY, Check, CheckResult
from otpmail.store.challenges import Attempt

ANSWER_SECONDS = 60.0
"""For which the same check has the same answer."""

_MOST_ANSWERS = 4  # of each kind
_MOST_LANES = 16  # of devices: while all of them count, a further device counts with strangers


def recent(record: CodeRecord, now: float, resend: float) -> CodeRecord:
    """Return the record without what time has taken away.

    These are expired challenges, failures and mails of more than a day ago, and answers of more than a minute.
    """
    slots = []
    for slot in record.slots:
        if slot.challenge is not None and slot.challenge.expires > now:
            slots.append(slot)
        elif slot.next_send > now:
            slots.append(Slot(slot.scope, slot.device, None, slot.next_send, slot.call))
    lanes, answers = record.lanes, record.answers
    # fast path: nothing has ended in most lanes, 3 us; held to the full path by tests/otp/test_records.py
    for lane in lanes:
        failures, sends = lane.failures, lane.sends
        if (failures and failures[0] + DAY <= now) or (sends and min(sends) + DAY - resend <= now):
            lanes = recent_lanes(record.lanes, now, resend)
    if answers:
        answers = tuple([answer for answer in answers if answer.until > now])
    return CodeRecord(tuple(slots), lanes, answers)


def recent_lanes(lanes: tuple[Lane, ...], now: float, resend: float) -> tuple[Lane, ...]:
    """Return the lanes with what is less than a day old."""
    left = []
    for lane in lanes:
        failures = tuple([at for at in lane.failures if at + DAY > now])
        sends = tuple([at for at in lane.sends if at + DAY - resend > now])
        if failures or sends:
            left.append(Lane(lane.device, failures, sends))
    return tuple(left)


def adopt(record: CodeRecord, earlier: EarlierRecord, scope: bytes, *, length: int, most: int) -> CodeRecord:
    """Return the record with what one of an earlier version says: its challenge, and up to `most` failures.

    Its challenge has that scope, and `length`. One of the same scope that was issued since is the live one. Failures
    from before the budgets were released count no more.
    """
    slots = record.slots
    challenge = earlier.challenge
    has_one = any(slot.scope == scope and slot.device == STRANGERS for slot in slots)
    if challenge is not None and not has_one:
        slots = (*slots, Slot(scope, challenge=replace(challenge, length=length), next_send=earlier.next_send))
    lane = lane_of(record, STRANGERS)
    since = max([0.0, *[at for known in record.lanes if known.device == RELEASED for at in known.failures]])
    failures = tuple(sorted({*lane.failures, *[at for at in earlier.failures if at > since]}))[-most:]
    return CodeRecord(slots, with_lane(record.lanes, Lane(STRANGERS, failures, lane.sends)), record.answers)


def answered(record: CodeRecord, attempt: Attempt, check: Check, until: float, *, is_free: bool = False) -> CodeRecord:
    """Return the record with the answer to a check, if that has a request id.

    Of each kind the oldest gives way: free answers displace no others, and wrong codes no right one.
    """
    if not attempt.request:
        return record
    answer = Answer(attempt.request, check, until, is_free)
    answers = record.answers
    same = [known for known in answers if _kind_of(known) == _kind_of(answer)]
    if len(same) >= _MOST_ANSWERS:
        answers = tuple([known for known in answers if known is not same[0]])
    return CodeRecord(record.slots, record.lanes, (*answers, answer))


def _kind_of(answer: Answer) -> tuple[bool, bool]:
    return answer.is_free, answer.check.result is CheckResult.VALID


def kept(record: CodeRecord) -> CodeRecord | None:
    """Return the record without what says nothing, None if that is all of it."""
    slots = tuple([slot for slot in record.slots if slot.challenge is not None or slot.next_send])
    lanes = tuple([lane for lane in record.lanes if lane.failures or lane.sends])
    return CodeRecord(slots, lanes, record.answers) if slots or lanes or record.answers else None


def released(record: CodeRecord, at: float | None, most: int) -> CodeRecord | None:
    """Return the record with nothing of its budgets spent. Live challenges stay, with their attempts and waits.

    A record of what was spent stays for a day (`RELEASED`), but counts no more. `at` is the time, where earlier records
    may be there, and `most` how many mails a lane has.
    """
    sends = sorted([mail for lane in record.lanes for mail in lane.sends])[-most:]
    failures = tuple([one for lane in record.lanes if lane.device == RELEASED for one in lane.failures])
    spent = Lane(RELEASED, failures if at is None else (at,), tuple(sends))
    return kept(CodeRecord(record.slots, (spent,), record.answers))


def lane_of(record: CodeRecord, device: bytes) -> Lane:
    """Return the lane in which a device counts: its own, a new one, or strangers' where too many devices have one.

    No lane gives way to another. Otherwise a person with many tokens could erase the failures of one by using others.
    """
    for lane in record.lanes:
        if lane.device == device:
            return lane
    if len(record.lanes) < _MOST_LANES or device == STRANGERS:
        return Lane(device)
    devices = [lane for lane in record.lanes if lane.device not in {STRANGERS, RELEASED}]
    return Lane(device) if len(devices) < _MOST_LANES else lane_of(record, STRANGERS)


def with_lane(lanes: tuple[Lane, ...], lane: Lane) -> tuple[Lane, ...]:
    """Return the lanes with this one as the latest of them, after strangers' lane."""
    device = lane.device
    if len(lanes) == 1 and lanes[0].device == device:
        return (lane,)
    others = [known for known in lanes if known.device != device]
    return (lane, *others) if device == STRANGERS else (*others, lane)


def with_slot(slots: tuple[Slot, ...], slot: Slot, after: Slot, *, last: bool = False) -> tuple[Slot, ...]:
    """Return the slots with `after` in place of `slot`, or behind the others."""
    if last:
        return (*[known for known in slots if known is not slot], after)
    if len(slots) == 1 and slots[0] is slot:
        return (after,)
    return tuple([after if known is slot else known for known in slots])


def with_mail(record: CodeRecord, lane: Lane, mail: float, most: int) -> CodeRecord:
    """Return the record with one mail more in a lane, of which it keeps the latest."""
    sends = (*lane.sends, mail)[-most:]
    return CodeRecord(record.slots, with_lane(record.lanes, Lane(lane.device, lane.failures, sends)), record.answers)


def without_mail(record: CodeRecord, mail: float) -> CodeRecord:
    """Return the record without a mail of strangers."""
    lane = lane_of(record, STRANGERS)
    if mail not in lane.sends:
        return record
    place = lane.sends.index(mail)
    sends = lane.sends[:place] + lane.sends[place + 1 :]
    return CodeRecord(record.slots, with_lane(record.lanes, Lane(STRANGERS, lane.failures, sends)), record.answers)
