"""The rules about sending and trying codes, as pure functions on one record. The time is always passed in.

A store applies a rule to a record in one step, so a rule sees every attempt before it. A server of Redis does so with
scripts of its own, which say the same (`store/redis/scripts`). Times are in seconds since the epoch.
"""

from dataclasses import replace

from otpmail.code_record import CALL, NO_CALL, STRANGERS, Budget, CodeRecord, EarlierRecord, Lane, Slot
from otpmail.errors import MemoryFull
from otpmail.limits.rules import counts_end, without_one
from otpmail.model import Challenge, Check, CheckResult, Counts, Reached, Sending
from otpmail.otp.quotas import admit, budgets_of
from otpmail.otp.records import (
    ANSWER_SECONDS,
    adopt,
    answered,
    kept,
    lane_of,
    recent,
    released,
    with_lane,
    with_mail,
    with_slot,
    without_mail,
)
from otpmail.otp.sending import SendingRules
from otpmail.otp.slots import MOST_LIVE, NO_CHALLENGE, ended_by_later, slot_of, with_room
from otpmail.otp.taken_back import TakenBack, refused, unsent, voided, withdrawn
from otpmail.store.challenges import NO_SCOPE, Admitted, Attempt, Guess, Quota, Send
from otpmail.values import frozen

_SPENT = CheckResult.TOO_MANY_ATTEMPTS
_RECORDS_FULL = "codes of other addresses take their half"

# An attempt at an address without a record is tried on this one, which is as much work as with one.
_NOBODY = CodeRecord((Slot(NO_SCOPE, challenge=Challenge(bytes(16), "", 1e18)),), (Lane(sends=(2**31,)),))


@frozen()
class Policy(SendingRules):
    """How often codes may be tried, how soon and how often they may be mailed, and what a record is after each call."""

    def send(self, record: CodeRecord | None, send: Send) -> tuple[CodeRecord, Sending]:
        """Decide which challenge to mail now: the live one, or the fresh one.

        A live one near its end is replaced, and the fresh one takes over its attempts: guesses at both are within the
        rules. A lane without failures left gets a long challenge, or none. A call that asks again with the same fresh
        challenge, since the answer was lost, has the first answer. Raises LimitExceeded, MemoryFull.
        """
        if record is None and not send.room:
            raise MemoryFull(_RECORDS_FULL)
        now, device, call = send.now, send.device, send.fresh.id[CALL]
        before, record = record, recent(record or CodeRecord(), now, self.resend)
        slot, slots = Slot(send.scope, device), record.slots
        for known in slots:
            if known.scope == send.scope and known.device == device:
                slot = known
        if len(slots) > MOST_LIVE and slot in ended_by_later(slots):
            slots = tuple([known for known in slots if known is not slot])
            slot = Slot(send.scope, device)
        is_again = slot.call == call != NO_CALL
        if is_again and slot.challenge is not None:
            spent_until = self._spent_until(lane_of(record, device).sends, send)
            return before or record, Sending(slot.challenge, slot.next_send, spent_until=spent_until)
        lane = lane_of(record, device) if record.lanes else Lane(device)
        attacked = bool(lane.failures) and self.failures.free_at(lane.failures) > now
        reached = self._refuse(slot, lane, send, attacked=attacked, spaced=send.spaced and not is_again)
        sending, replaced = self._choose(slot, now, send.fresh, attacked=attacked)
        is_further = slot.challenge is None or not slot.next_send
        if is_further and len(slots) >= MOST_LIVE:
            slots = with_room(tuple([known for known in slots if known is not slot]), device, now)
        after = Slot(send.scope, device, sending.challenge, sending.next_send, call, replaced)
        sends = (*lane.sends, sending.next_send)[-self.sends.most :]
        lanes = with_lane(record.lanes, Lane(lane.device, lane.failures, sends))
        is_fresh = sending.challenge.id == send.fresh.id
        # fast path: few mails use a limit up, a call less; held to `_spent_until` by tests/otp/test_policy.py
        spent_until = self._spent_until(sends, send) if len(sends) >= self.sends.fewest else 0.0
        if reached or spent_until:
            sending = replace(sending, reached=reached, spent_until=spent_until)
        return CodeRecord(with_slot(slots, slot, after, last=is_fresh or is_further), lanes, record.answers), sending

    def check(
        self, record: CodeRecord | None, now: float, guess: Guess, attempt: Attempt
    ) -> tuple[CodeRecord | None, Check]:
        """Count an attempt, compare, and use the code up if it is right.

        Its work takes as long in each case, so that the time of an answer tells no case from another. A text that
        can't be a code costs no attempt, and nor does any text where the code is a long one.
        """
        before = _NOBODY if record is None else record
        if not before.slots:
            before = CodeRecord(_NOBODY.slots, before.lanes, before.answers)
        known = recent(before, now, self.resend)
        has_slots = record is not None and bool(record.slots and known.slots)
        if not known.slots:
            known = CodeRecord(_NOBODY.slots, known.lanes, known.answers)
        for answer in known.answers:
            if answer.request == attempt.request:
                return record, answer.check
        slot = slot_of(known, attempt)
        lane = lane_of(known, attempt.device)
        challenge = slot.challenge or NO_CHALLENGE
        matches = guess.matches(challenge)
        counted = self._counted(known, slot, challenge, lane, now)
        spent = self.failures.free_at(lane.failures)
        is_live = has_slots and challenge is not NO_CHALLENGE and attempt.only in (None, challenge.id)
        left = (challenge.most or self.attempts) - challenge.attempts
        is_spent = spent > now and not (is_live and challenge.is_long)
        until = now + ANSWER_SECONDS
        if is_spent or (is_live and left <= 0):
            is_locked = is_spent and (self.locks or attempt.compat)
            again = self.next_code_at(slot, lane, now, attempt, lock=spent if is_locked else 0.0)
            told = Check(_SPENT, 0, again, limit=self.used_up(lane, by_failures=is_spent) if attempt.compat else "")
            until = min(until, spent) if is_locked else until
        elif not is_live:
            told = Check(CheckResult.NO_LIVE_CODE)
        elif matches:
            return self._used(known, slot, now, attempt)
        elif challenge.length not in guess.lengths or challenge.is_long:
            told = Check(CheckResult.WRONG_CODE, left)
        else:
            wrong = Check(CheckResult.WRONG_CODE, left - 1)
            return answered(counted, attempt, wrong, until), wrong
        if not attempt.request:
            return record, told
        after = CodeRecord(known.slots if has_slots else (), known.lanes, known.answers)
        return _with_free_answer(record, answered(after, attempt, told, until, is_free=True)), told

    def mails_at(self, record: CodeRecord | None, now: float, *, compat: bool) -> float:
        """Return when one more mail of strangers is within the limits of a mailbox, in the past where it is so now."""
        lane = lane_of(recent(record or CodeRecord(), now, self.resend), STRANGERS)
        free = self.sends.free_at(lane.sends) - self.resend
        return 0.0 if compat or "address" in self.shadows else free

    def is_limited(self, record: CodeRecord | None, now: float, attempt: Attempt) -> bool:
        """Whether limits over many addresses hold for an attempt: for each of strangers but at a long code.

        A device beyond those with lanes counts as a stranger.
        """
        known = recent(_NOBODY if record is None else record, now, self.resend)
        challenge = slot_of(known, attempt).challenge
        is_long = challenge is not None and challenge.is_long and attempt.only in (None, challenge.id)
        return not is_long and lane_of(known, attempt.device).device == STRANGERS

    def admit(self, counts: Counts, quota: Quota, now: float) -> Admitted:
        """Count one mail more for a limit over many addresses. Raises LimitExceeded."""
        return admit(counts, quota, now)

    def note(
        self, record: CodeRecord | None, send: Send, sending: Sending
    ) -> tuple[CodeRecord, tuple[Reached, ...], float]:
        """Count a mail for the mailbox of an address with a tag. Raises LimitExceeded."""
        record = recent(record or CodeRecord(), send.now, self.resend)
        lane = lane_of(record, STRANGERS)
        reached = self._refuse(Slot(send.scope), lane, send, attacked=False, spaced=send.spaced)
        spent_until = self._spent_until((*lane.sends, sending.next_send), send)
        return with_mail(record, lane, sending.next_send, self.sends.most), reached, spent_until

    def unnote(self, record: CodeRecord | None, mail: float) -> CodeRecord | None:
        """Return the record of a mailbox without a mail that was not sent."""
        return record and kept(without_mail(record, mail))

    def uncount(self, counts: Counts, mail: float) -> tuple[Counts, float]:
        """Return the counts without a mail that was not sent, and when they end."""
        counts = without_one(counts, mail - self.resend)
        return counts, counts_end(counts)

    def uncount_at(self, counts: Counts, quota: Quota, when: float) -> tuple[Counts, float]:
        """Return the counts of a limit without a mail that was counted then, and when they end."""
        counts = without_one(counts, when, quota.stretch)
        return counts, counts_end(counts, quota.stretch)

    def budgets(self, record: CodeRecord | None, now: float) -> tuple[Budget, ...]:
        """Return of which limits strangers have spent something, and how much."""
        lane = lane_of(record or CodeRecord(), STRANGERS)
        sends = tuple([at - self.resend for at in lane.sends])
        return budgets_of("FAILURES", self.failures, lane.failures, now) + budgets_of("SENDS", self.sends, sends, now)

    def release(self, record: CodeRecord | None, at: float | None) -> tuple[CodeRecord | None, None]:
        """Take back all that was spent of the budgets, also by devices, and in earlier records until `at`."""
        return released(record or CodeRecord(), at, self.sends.most), None

    def void(
        self, record: CodeRecord | None, scope: bytes, challenge_id: bytes | None
    ) -> tuple[CodeRecord | None, None]:
        """End the live challenges of a scope (all, or only that one) unused. Failures and waits stay."""
        return record and voided(record, scope, challenge_id), None

    def unsend(self, record: CodeRecord | None, sending: Sending) -> TakenBack:
        """Undo `send`, whose mail was not sent: it counts no more, and the next may be sent at once.

        Once no mail with the challenge was sent, the one that it replaced is live again, since a person may have its
        code. The attempts stay. If another mail was sent since, the next one has to wait for that.
        """
        return (None, None) if record is None else unsent(record, sending)

    def withdraw(self, record: CodeRecord | None, call: bytes) -> TakenBack:
        """Undo `send` by the mark of its call, where nobody has its answer: no mail was sent for it.

        Nothing changes where another call has asked since.
        """
        return (None, None) if record is None else withdrawn(record, call)

    def refuse(self, record: CodeRecord | None, sending: Sending) -> tuple[CodeRecord | None, None]:
        """The relay refused the address for good: the challenge is live no more, and the next mail need not wait.

        The mail counts: the relay has seen it. Codes of other mails stay live.
        """
        return record and refused(record, sending), None

    def adopt(self, record: CodeRecord | None, earlier: EarlierRecord, scope: bytes) -> CodeRecord:
        """Return the record with what one of an earlier version says, whose purpose has that scope."""
        return adopt(record or CodeRecord(), earlier, scope, length=self.digits, most=self.failures.most)

    def _counted(self, record: CodeRecord, slot: Slot, challenge: Challenge, lane: Lane, now: float) -> CodeRecord:
        """Return the record with one more failure, of a challenge and of a lane."""
        tried = challenge.attempts + 1
        failed = Challenge(challenge.id, challenge.key_id, challenge.expires, tried, challenge.length, challenge.most)
        after = Slot(slot.scope, slot.device, failed, slot.next_send, slot.call, slot.replaced)
        failures = (*lane.failures, now)[-self.failures.most :]
        lanes = with_lane(record.lanes, Lane(lane.device, failures, lane.sends))
        return CodeRecord(with_slot(record.slots, slot, after), lanes, record.answers)

    def _used(self, record: CodeRecord, slot: Slot, now: float, attempt: Attempt) -> tuple[CodeRecord | None, Check]:
        """Return the record without the slot of a right code. The lane of a device is dropped, strangers' lane stays.

        A person has wanted the mails that led to a right code, and a device of hers may have many in a day.
        """
        device = attempt.device
        lanes = tuple([lane for lane in record.lanes if lane.device != device or device == STRANGERS])
        check = Check(CheckResult.VALID, 0, None, attempt.new_device if device == STRANGERS else device, now)
        after = CodeRecord(tuple([known for known in record.slots if known is not slot]), lanes, record.answers)
        return kept(answered(after, attempt, check, now + ANSWER_SECONDS)), check


def _with_free_answer(before: CodeRecord | None, after: CodeRecord) -> CodeRecord | None:
    """Return the record after an answer that changed nothing else.

    No record begins with such an answer, or ends much later for it. Otherwise checks alone could fill the store.
    """
    return after if before is not None and (after.slots or after.lanes) else before
