"""The rules about sending and trying codes, on one record and with the time passed in."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otp.trying import DEVICE, LIFESPAN, POLICY, Typed, check, fail, fresh, send, sent
from otpmail.code_record import STRANGERS, CodeRecord, Lane, Replaced, Slot
from otpmail.errors import LimitExceeded, MemoryFull
from otpmail.limits.rules import Windows
from otpmail.model import DAY, HOUR, LONG, Challenge, Check, CheckResult, Sending
from otpmail.otp.policy import Policy
from otpmail.store.challenges import NO_SCOPE, Attempt, Send
from otpmail.store.record_codec import ends_of

LOCKING = replace(POLICY, locks=True)
SCOPE = b"a scope."
TOO_MANY, WRONG, NO_LIVE_CODE = CheckResult.TOO_MANY_ATTEMPTS, CheckResult.WRONG_CODE, CheckResult.NO_LIVE_CODE


def _spent(now: float = 0.0) -> CodeRecord:
    """Return a record whose strangers have no failures left, a quarter of a minute after `now`."""
    record: CodeRecord | None = fail(sent(now), now, 3)
    record = send(record, now + 30, "b")[0]
    record = fail(record, now + 30, 2)
    assert record is not None
    return record


def _challenge(record: CodeRecord | None) -> Challenge | None:
    [slot] = record.slots if record is not None else [Slot(NO_SCOPE)]
    return slot.challenge


def _live(record: CodeRecord | None, now: float) -> list[bytes]:
    """Return the ids of the challenges whose codes are valid now, in the order of the slots."""
    assert record is not None
    held = [(slot, slot.challenge.id) for slot in record.slots if slot.challenge is not None]
    tried = [(right, check(record, now, right, attempt=Attempt(slot.scope, slot.device))) for slot, right in held]
    return [right for right, (_, answer) in tried if answer.result is CheckResult.VALID]


def test_a_first_send_issues_the_fresh_challenge() -> None:
    """Without a live code the fresh challenge is mailed, and the next mail may go `resend` seconds later."""
    record, sending = send(None, 10.0)
    assert sending == Sending(fresh("a", 10.0), 40.0)
    slot = Slot(NO_SCOPE, challenge=sending.challenge, next_send=40.0, call=b"a")
    assert record == CodeRecord((slot,), (Lane(sends=(40,)),))


def test_a_resend_mails_the_live_challenge_as_it_is() -> None:
    """A resend mails the same code: its expiry is not extended and its failed attempts are not forgiven."""
    _, sending = send(fail(sent(), 1.0, 2), 31.0, "b")
    assert sending == Sending(replace(fresh("a"), attempts=2), 61.0)


@pytest.mark.parametrize(
    ("lifespan", "left", "name"),
    [
        (120.0, 60.0, b"a"),
        (120.0, 59.9, b"b"),
        (600.0, 300.0, b"a"),
        (600.0, 299.9, b"b"),
        (90.0, 60.0, b"a"),
        (90.0, 59.9, b"b"),
        (61.0, 60.0, b"a"),
        (60.0, 59.9, b"a"),
        (60.0, 30.0, b"a"),
        (60.0, 29.9, b"b"),
        (2.0, 1.0, b"a"),
        (2.0, 0.9, b"b"),
    ],
)
def test_a_code_near_its_end_is_replaced(lifespan: float, left: float, name: bytes) -> None:
    """A resend leaves half of a life, or a minute if that is longer; lives of a minute are halved."""
    record, _ = POLICY.send(None, Send(b"", 0.0, fresh("a", lifespan=lifespan)))
    now = lifespan - left
    asked = Send(b"", now, fresh("b", now, lifespan), spaced=False)
    assert POLICY.send(record, asked)[1].challenge.id == name


def test_a_replaced_code_hands_its_attempts_on() -> None:
    """The new code takes over the attempts of the old one: over both there are N."""
    record: CodeRecord | None
    record, sending = send(fail(sent(), 1.0, 2), 70.0, "b")
    assert sending.challenge == replace(fresh("b", 70.0), attempts=2)
    assert check(record, 71.0, b"a", attempt=Attempt(only=b"a"))[1] == Check(NO_LIVE_CODE)
    record, answer = check(record, 71.0)
    assert answer == Check(WRONG, 0)
    assert check(record, 71.0)[1].result is TOO_MANY


def test_an_expired_challenge_leaves_no_attempts() -> None:
    """From the moment of its expiry on a challenge is not replaced but gone, and the next has all attempts."""
    _, sending = send(fail(sent(), 1.0, 2), 120.0, "b")
    assert sending == Sending(fresh("b", 120.0), 150.0)


def test_a_challenge_without_attempts_left_is_replaced() -> None:
    """A code without attempts left is not mailed again."""
    assert send(fail(sent(), 1.0, 3), 31.0, "b")[1] == Sending(fresh("b", 31.0), 61.0)


def test_mails_are_spaced() -> None:
    """A second mail too soon is refused with the time that is left, unless spacing is not asked for."""
    with pytest.raises(LimitExceeded, match="just now") as caught:
        send(sent(), 29.0, "b")
    assert caught.value.retry_after == pytest.approx(1.0)
    assert (caught.value.subject, caught.value.setting) == ("address", "OTP_RESEND_SECONDS")
    assert send(sent(), 29.0, "b", spaced=False)[1].challenge.id == b"a"
    assert send(sent(), 30.0, "b")[1].challenge.id == b"a"


def test_exactly_n_attempts() -> None:
    """The policy compares attempt N, refuses attempt N+1, and says when a new code may be asked for."""
    record: CodeRecord | None = sent()
    left = []
    for _ in range(POLICY.attempts):
        record, answer = check(record, 1.0)
        left.append(answer)
    assert left == [Check(WRONG, 2), Check(WRONG, 1), Check(WRONG, 0)]
    assert check(record, 1.0, b"a") == (record, Check(TOO_MANY, 0, 30.0))
    assert check(fail(sent(), 1.0, 2), 1.0, b"a")[1].result is CheckResult.VALID


def test_nothing_live_is_not_counted() -> None:
    """Without a live code there is nothing to try, and nothing is spent."""
    for record in (None, CodeRecord(), CodeRecord(lanes=(Lane(failures=(1,)),)), sent()):
        assert check(record, 500.0) == (record, Check(NO_LIVE_CODE))


def test_an_attempt_bound_to_another_challenge_is_not_compared() -> None:
    """An attempt with a challenge id tries that challenge only."""
    assert check(sent(), 1.0, b"a", attempt=Attempt(only=b"b")) == (sent(), Check(NO_LIVE_CODE))
    assert check(sent(), 1.0, b"a", attempt=Attempt(only=b"a"))[1].result is CheckResult.VALID


def test_a_text_that_can_not_be_a_code_costs_nothing() -> None:
    """The policy compares such a text like any other, and neither the code nor its address loses an attempt by it."""
    record = fail(sent(), 1.0, 1)
    assert check(record, 2.0, length=5) == (record, Check(WRONG, 2))
    spent = fail(record, 2.0, 2)
    assert check(spent, 3.0, length=5)[1].result is TOO_MANY


def test_a_right_code_is_for_one() -> None:
    """The first to succeed uses the code up; a second finds nothing, and the next code may be mailed at once."""
    record, answer = check(sent(), 1.0, b"a")
    assert answer.result is CheckResult.VALID
    assert check(record, 1.0, b"a") == (record, Check(NO_LIVE_CODE))
    assert send(record, 2.0, "b")[1].challenge.id == b"b"


def test_a_success_of_a_stranger_clears_no_budget() -> None:
    """Failures and mails of strangers stay when the owner succeeds: otherwise each success would be worth guesses."""
    record, _ = check(fail(sent(), 1.0, 2), 2.0, b"a")
    assert record == CodeRecord(lanes=(Lane(failures=(1, 1), sends=(30,)),))


@pytest.mark.parametrize(("times", "most", "seconds"), [(5, 5, HOUR), (12, 12, DAY)])
def test_failures_are_limited_by_hour_and_by_day(times: int, most: int, seconds: int) -> None:
    """Each failure counts from its own time for an hour and for a day, over all codes of an address."""
    record: CodeRecord | None = None
    at = began = 1000.0
    for number in range(times):
        record = send(record, at, f"c{number}", spaced=False, policy=LOCKING)[0]
        record = fail(record, at, 1)
        if seconds == DAY:
            at += HOUR + 1
    free = began + seconds
    with pytest.raises(LimitExceeded, match="in an hour" if seconds == HOUR else "in a day") as caught:
        send(record, free - 1, "last", policy=LOCKING)
    assert caught.value.retry_after == pytest.approx(1.0)
    assert times == most
    record, sending = send(record, free, "last", policy=LOCKING)
    assert sending.challenge.id == b"last"
    assert check(record, free, policy=LOCKING)[1].result is WRONG


def test_a_refusal_by_several_limits_is_for_the_one_that_lasts_longest() -> None:
    """A caller that waits as long as a refusal says is not refused by another limit then."""
    record: CodeRecord | None = None
    for number in range(9):
        record, _ = send(record, float(number), f"c{number}", scope=bytes([number]) * 8)
    record, _ = send(record, HOUR - 10.0, "last")
    now = HOUR - 5.0  # the mails of the hour hold for 5 seconds more, and the wait of this slot for 25
    for wait in (0.0, 24.0):
        with pytest.raises(LimitExceeded, match="just now") as caught:
            send(record, now + wait, "more")
        assert caught.value.retry_after == 25.0 - wait
    assert send(record, now + 25.0, "more")
    record = fail(record, now, 3)
    record = fail(send(record, now, "again", spaced=False)[0], now, 2)
    with pytest.raises(LimitExceeded, match="wrong codes") as caught:
        send(record, now, "more", policy=LOCKING)
    assert caught.value.retry_after == HOUR


@pytest.mark.parametrize("policy", [POLICY, LOCKING])
def test_the_time_of_a_check_is_that_of_a_new_code(policy: Policy) -> None:
    """TOO_MANY_ATTEMPTS says when SendCode mails again, by each limit that would refuse it; not a second too soon."""
    record: CodeRecord | None = None
    for number in range(10):
        record, _ = send(record, 60.0 * number, "code" if number == 9 else f"c{number}", scope=bytes([number % 2]) * 8)
    now, scope = 541.0, bytes([1]) * 8
    record = fail(record, now, 3, Attempt(scope))
    told = check(record, now, policy=policy, attempt=Attempt(scope))[1]
    assert (told.result, told.retry_time) == (TOO_MANY, HOUR)
    with pytest.raises(LimitExceeded):
        send(record, HOUR - 1.0, "more", scope=scope, policy=policy)
    assert send(record, float(HOUR), "more", scope=scope, policy=policy)
    shown = check(record, now, policy=replace(policy, shadows=frozenset({"address"})), attempt=Attempt(scope))[1]
    assert shown.retry_time == 540.0 + policy.resend


def test_a_repeated_question_says_when_the_next_mail_may_go() -> None:
    """A call that asks again, since its answer was lost, learns as the first one until when a limit is used up."""
    policy = replace(POLICY, sends=Windows(2, 30))
    record, _ = send(None, 0.0, "call1", policy=policy)
    record, first = send(record, 40.0, "call2", policy=policy)
    assert first.spent_until == HOUR
    assert send(record, 41.0, "call2", policy=policy)[1] == first


def test_mails_are_limited_by_hour_and_by_day() -> None:
    """An address gets so many mails in any hour and in any day, over all purposes and sessions of strangers."""
    record: CodeRecord | None = None
    for number in range(10):
        record, _ = send(record, float(number), f"c{number}", scope=bytes([number]) * 8)
    with pytest.raises(LimitExceeded, match="codes were mailed for this address in an hour") as caught:
        send(record, 10.0, "more", scope=SCOPE)
    assert caught.value.retry_after == pytest.approx(HOUR - 10.0)
    for hour in (1, 2):
        for number in range(10):
            record, _ = send(record, hour * HOUR + 10.0 + number, f"d{hour}{number}", scope=bytes([number]) * 8)
    with pytest.raises(LimitExceeded, match="in a day") as caught:
        send(record, 4.0 * HOUR, "more", scope=SCOPE)
    assert caught.value.retry_after == pytest.approx(DAY - 4.0 * HOUR)
    assert send(record, float(DAY), "more", scope=SCOPE)[1].challenge.id == b"more"
    assert send(record, 4.0 * HOUR, "compat", spaced=False)[1]
    assert send(record, 4.0 * HOUR, "device", device=DEVICE)[1].challenge.id == b"device"


def test_a_lane_without_failures_left_gets_long_codes() -> None:
    """A long code replaces the short one, which is void; wrong tries cost it nothing, and it is mailed again."""
    record: CodeRecord | None = _spent()
    assert check(record, 31.0, b"b") == (record, Check(TOO_MANY, 0, 60.0))
    record, sending = send(record, 60.0, "c")
    assert sending.challenge == Challenge(b"c", "k1", 60.0 + LIFESPAN, length=LONG)
    for _ in range(50):
        assert check(record, 61.0, length=LONG) == (record, Check(WRONG, 3))
        assert check(record, 61.0) == (record, Check(WRONG, 3))
    assert send(record, 90.0, "d")[1].challenge == sending.challenge
    assert check(record, 62.0, b"c", length=LONG)[1].result is CheckResult.VALID


def test_a_lane_may_be_locked_instead() -> None:
    """With `locks`, and for the original's contract, a lane without failures left gets no code and no check."""
    for policy, compat in ((LOCKING, False), (POLICY, True)):
        with pytest.raises(LimitExceeded, match="too many wrong codes") as caught:
            send(_spent(), 60.0, "c", policy=policy, compat=compat, spaced=False)
        assert caught.value.retry_after == HOUR - 60.0
        answer = check(_spent(), 60.0, b"b", policy=policy, attempt=Attempt(compat=compat))[1]
        assert answer == Check(TOO_MANY, 0, float(HOUR), limit="failures_per_hour" if compat else "")


def test_a_device_has_a_lane_and_a_code_of_its_own() -> None:
    """Neither failures, mails nor codes of strangers are a device's; its own success forgives its failures."""
    record: CodeRecord | None
    record, sending = send(_spent(), 31.0, "mine", device=DEVICE)
    assert sending.challenge.length == 6
    mine = Attempt(device=DEVICE)
    record = fail(record, 32.0, 2, mine)
    assert check(record, 33.0)[1].result is TOO_MANY
    after, answer = check(record, 33.0, b"mine", attempt=mine)
    assert answer == Check(CheckResult.VALID, 0, None, DEVICE, 33.0)
    assert after is not None
    assert [lane.device for lane in after.lanes] == [STRANGERS]


def test_a_device_is_named_by_a_right_code() -> None:
    """A stranger's right code names a new device, and that of a device names it again."""
    assert check(sent(), 1.0, b"a", attempt=Attempt(new_device=b"new one."))[1].device == b"new one."


def test_a_device_may_use_the_code_of_a_stranger() -> None:
    """A code that was asked for without a token is found with one, and counts in the lane of that."""
    record = fail(sent(), 1.0, 1, Attempt(device=DEVICE))
    assert record is not None
    assert {lane.device: len(lane.failures) for lane in record.lanes} == {STRANGERS: 0, DEVICE: 1}


def test_sessions_are_apart() -> None:
    """Another session has another code with attempts of its own; a code of one fails for another."""
    record: CodeRecord | None
    record, other = send(sent(), 1.0, "b", scope=SCOPE)
    assert other.challenge.id == b"b"
    record = fail(record, 2.0, 3)
    assert check(record, 3.0, b"b", attempt=Attempt(SCOPE))[1].result is CheckResult.VALID
    assert check(record, 3.0, b"a", attempt=Attempt(b"unknown."))[1] == Check(NO_LIVE_CODE)
    record, _ = POLICY.void(record, NO_SCOPE, None)
    assert check(record, 3.0, b"b", attempt=Attempt(SCOPE))[1].result is CheckResult.VALID


def test_a_fourth_code_ends_the_oldest_short_one_of_strangers() -> None:
    """A fourth code of strangers ends neither a long one nor one of a device; with none but these it is one more."""
    record: CodeRecord | None
    record, _ = send(_spent(), 60.0, "long")
    assert _challenge(record) == Challenge(b"long", "k1", 60.0 + LIFESPAN, length=LONG)
    assert record is not None
    record = CodeRecord(record.slots)  # the failures are of the past
    record, _ = send(record, 61.0, "mine", device=DEVICE)
    for number in range(3):
        record, _ = send(record, 62.0, f"s{number}", scope=bytes([number + 1]) * 8)
    assert _live(record, 62.0) == [b"long", b"mine", b"s2"]
    record, _ = send(CodeRecord(record.slots[:2]), 63.0, "d2", device=b"device 2")
    record, _ = send(record, 64.0, "d3", device=b"device 3")
    assert len(_live(record, 64.0)) == 4


def test_a_fourth_code_of_a_device_ends_its_oldest() -> None:
    """A device has three live codes at most, however many sessions it names, and takes no place of others."""
    record: CodeRecord | None
    record, _ = send(sent(), 1.0, "mine", device=DEVICE)
    record = CodeRecord(record.slots)
    for number in range(100):
        record, _ = send(CodeRecord(record.slots), 2.0, f"o{number}", device=b"device 2", scope=number.to_bytes(8))
    assert _live(record, 2.0) == [b"mine", b"o97", b"o98", b"o99"]
    assert len(record.slots) < 25
    record, again = send(record, 3.0, "stranger", scope=SCOPE)
    assert again.challenge.id == b"stranger"


@pytest.mark.parametrize("device", [STRANGERS, DEVICE])
def test_a_call_that_mails_nothing_ends_no_code(device: bytes) -> None:
    """A code that later ones have ended is live again where their mails were not sent, however many those were."""
    record: CodeRecord | None
    record, _ = send(None, 0.0, "mine", device=device)
    for number in range(1, 100):
        record, sending = send(record, 1.0, f"s{number}", scope=number.to_bytes(8), device=device)
        if number > 3:
            record, _ = POLICY.unsend(record, sending)
        elif number == 3:
            third = sending
    assert b"mine" not in _live(record, 1.0)
    record, _ = POLICY.unsend(record, third)
    assert record is not None
    assert b"mine" in _live(record, 1.0)
    assert len(record.slots) < 25


def test_a_code_that_was_not_mailed_takes_the_place_of_a_later_one() -> None:
    """A code whose mail was not sent is mailed again as the latest one: it ends the oldest, and not itself."""
    record, sending = send(None, 0.0, "mine")
    record, _ = POLICY.unsend(record, sending)  # type: ignore[assignment]
    for number in range(3):
        record, _ = send(record, 1.0, f"s{number}", scope=bytes([number + 1]) * 8)
    assert len(_live(record, 1.0)) == 4
    record, again = send(record, 2.0, "another")
    assert again.challenge.id == b"mine"
    assert _live(record, 2.0) == [b"s1", b"s2", b"mine"]


def test_a_session_whose_code_has_ended_asks_again() -> None:
    """It gets a new code at once, as the latest one of all."""
    record, _ = send(None, 0.0, "mine")
    for number in range(3):
        record, _ = send(record, 1.0, f"s{number}", scope=bytes([number + 1]) * 8)
    record, again = send(record, 2.0, "another")
    assert again.challenge.id == b"another"
    assert _live(record, 2.0) == [b"s1", b"s2", b"another"]


def test_a_repeated_check_has_the_same_answer() -> None:
    """For a minute the same request has the first answer, and changes nothing; another request counts."""
    attempt = Attempt(request=b"request1", new_device=DEVICE)
    record, wrong = check(sent(), 1.0, attempt=attempt)
    assert check(record, 60.9, attempt=attempt) == (record, wrong)
    assert check(record, 61.0, attempt=attempt)[1].attempts_left == 1
    right = attempt._replace(request=b"request2")
    record, valid = check(record, 2.0, b"a", attempt=right)
    assert valid.result is CheckResult.VALID
    assert check(record, 3.0, b"a", attempt=right._replace(new_device=b"another1"))[1] == valid
    assert check(record, 3.0, b"a")[1].result is NO_LIVE_CODE


def test_an_address_without_a_record_needs_room() -> None:
    """Without room for another record only addresses that have one may get a code."""
    with pytest.raises(MemoryFull):
        POLICY.send(None, Send(b"", 0.0, fresh("a"), room=False))
    assert POLICY.send(sent(), Send(b"", 30.0, fresh("b"), room=False))[1].challenge.id == b"a"


def test_voiding_ends_the_code_and_keeps_the_failures() -> None:
    """A void code is gone; it was not shown, so failures, mails and the wait stay."""
    record = fail(sent(), 1.0, 2)
    assert POLICY.void(record, NO_SCOPE, b"b") == (record, None)
    assert POLICY.void(record, SCOPE, None) == (record, None)
    for only in (None, b"a"):
        after, _ = POLICY.void(record, NO_SCOPE, only)
        assert after is not None
        assert _challenge(after) is None
        assert after.lanes == (Lane(failures=(1, 1), sends=(30,)),)
        with pytest.raises(LimitExceeded, match="just now"):
            send(after, 2.0, "b")
    assert POLICY.void(None, NO_SCOPE, None) == (None, None)


def test_a_mail_that_did_not_leave_is_not_waited_for() -> None:
    """After `unsend` the mail counts no more, and the same code may be mailed at once."""
    record, sending = send(None, 0.0)
    assert POLICY.unsend(record, Sending(fresh("b"), 29.0)) == (record, None)
    after, _ = POLICY.unsend(record, sending)
    assert after is not None
    assert after.lanes == ()
    assert send(after, 1.0, "b")[1].challenge == fresh("a")
    later, again = send(record, 31.0, "b")
    unsent, _ = POLICY.unsend(later, sending)  # another was sent since
    assert unsent is not None
    assert (unsent.slots, unsent.lanes) == (later.slots, (Lane(sends=(61,)),))
    assert POLICY.unsend(unsent, sending) == (unsent, None)
    assert again.next_send == 61.0
    assert POLICY.unsend(None, sending) == (None, None)


def test_a_replaced_challenge_returns_where_the_new_ones_mail_did_not_leave() -> None:
    """The code that a person has is valid again if no newer one was mailed; attempts at the newer one stay counted."""
    record: CodeRecord | None
    record, sending = send(fail(sent(), 1.0, 1), 70.0, "b")
    tried = fail(record, 71.0, 1)
    after, _ = POLICY.unsend(tried, sending)
    assert _challenge(after) == replace(fresh("a"), attempts=2)
    assert after is not None
    assert after.lanes == (Lane(failures=(1, 71), sends=(30,)),)
    again, _ = send(record, 71.0, "c", spaced=False)
    unsent, _ = POLICY.unsend(again, sending)
    assert unsent is not None
    assert unsent.slots[0].replaced == Replaced(fresh("a"), (101.0,))  # the newer one was mailed since
    assert _challenge(unsent) == _challenge(again)


def test_a_challenge_that_was_mailed_often_stays() -> None:
    """A record knows of eight mails of a challenge that replaced another; of more, one was sent for sure."""
    record, sending = send(sent(), 70.0, "b")
    for number in range(8):
        record, _ = send(record, 71.0 + number, f"c{number}", spaced=False)
        assert record.slots[0].replaced is not None or number == 7
    assert record.slots[0].replaced is None
    after, _ = POLICY.unsend(record, sending)
    assert _challenge(after) == _challenge(record)


def test_a_call_that_asks_again_has_the_first_answer() -> None:
    """A call whose answer was lost is not refused over its own mail, whichever code that holds."""
    record: CodeRecord | None
    record, sending = send(sent(), 31.0, "b")
    assert sending.challenge.id == b"a"
    assert send(record, 31.5, "b") == (record, sending)
    with pytest.raises(LimitExceeded):
        send(record, 31.5, "c")
    ended, _ = POLICY.void(record, NO_SCOPE, None)
    assert send(ended, 32.0, "b")[1].challenge == fresh("b", 32.0)


def test_a_call_that_sends_no_mail_is_withdrawn() -> None:
    """After a call without an answer the next one need not wait, and a code that it replaced is live again."""
    record, _ = send(sent(), 31.0, "b")
    assert POLICY.withdraw(record, b"c") == (record, None)
    after, _ = POLICY.withdraw(record, b"b")
    assert send(after, 32.0, "c")[1].challenge.id == b"a"
    replacing, _ = send(record, 70.0, "d")
    after, _ = POLICY.withdraw(replacing, b"d")
    assert after == CodeRecord((Slot(NO_SCOPE, challenge=fresh("a")),), (Lane(sends=(30, 61)),))
    assert POLICY.withdraw(after, b"d") == (after, None)
    assert POLICY.withdraw(None, b"d") == (None, None)
    assert POLICY.withdraw(sent(), b"a")[0] == CodeRecord((Slot(NO_SCOPE, challenge=fresh("a")),))
    ended, _ = POLICY.void(sent(), NO_SCOPE, None)
    assert POLICY.withdraw(ended, b"a") == (None, 30.0)


def test_a_refused_address_has_no_code() -> None:
    """Where the relay refuses the address for good its code ends, and the mail counts: the relay has seen it."""
    record, sending = send(None, 70.0, "b")
    after, _ = POLICY.refuse(record, sending)
    assert after == CodeRecord(lanes=(Lane(sends=(100,)),))
    assert POLICY.refuse(sent(), sending) == (sent(), None)
    assert POLICY.refuse(None, sending) == (None, None)


def test_a_refusal_ends_no_code_of_another_mail() -> None:
    """A refused mail leaves the code that a later mail brings, and the one that it has replaced."""
    record, sending = send(sent(), 70.0, "b")
    after, _ = POLICY.refuse(record, sending)
    assert after == CodeRecord((Slot(NO_SCOPE, challenge=fresh("a")),), (Lane(sends=(30, 100)),))
    resent, later = send(record, 71.0, "c", spaced=False)
    after, _ = POLICY.refuse(resent, sending)
    assert _challenge(after) == later.challenge
    after, _ = POLICY.unsend(after, later)
    assert _challenge(after) == fresh("a")


def test_a_refusal_ends_no_code_that_was_mailed_before() -> None:
    """A code that is mailed again, in vain, stays live, and the next mail need not wait; so it is twice in a row."""
    mailed, first = send(None, 0.0, "a")
    record: CodeRecord | None = mailed
    for now in (30.0, 31.0):
        mailed, again = send(record, now, "b")
        assert again.challenge == first.challenge
        record, _ = POLICY.refuse(mailed, again)
        assert _challenge(record) == first.challenge
    after, _ = POLICY.refuse(record, first)
    assert _challenge(after) == first.challenge


def test_a_record_says_when_it_says_nothing_any_more() -> None:
    """A record may be dropped once all in it is of the past; without room a few mails do not hold it."""
    assert ends_of(CodeRecord()) == (0.0, 0.0)
    assert ends_of(sent()) == (30.0 + DAY, 120.0)
    failed = fail(sent(), 1.0, 1)
    assert failed is not None
    assert ends_of(failed) == (30.0 + DAY, 1.0 + DAY)
    assert ends_of(CodeRecord((Slot(NO_SCOPE, next_send=7.0),))) == (7.0, 7.0)
    assert ends_of(CodeRecord(lanes=(Lane(sends=(1, 2, 3, 4)),))) == (4.0 + DAY, 4.0 + DAY)


@dataclass
class _World:
    """A count of what an attacker and a person did, apart from the policy's own."""

    now: float = 1.0
    record: CodeRecord | None = None
    issued: int = 0
    tries: dict[bytes, int] = field(default_factory=dict)
    expiries: dict[bytes, float] = field(default_factory=dict)
    failures: list[float] = field(default_factory=list)
    mails: list[float] = field(default_factory=list)
    used: set[bytes] = field(default_factory=set)
    last: Sending | None = None

    def send(self, scope: bytes, *, spaced: bool) -> None:
        self.issued += 1
        challenge = Challenge(self.issued.to_bytes(16), "k1", self.now + LIFESPAN, length=6)
        try:
            self.record, sending = POLICY.send(self.record, Send(b"", self.now, challenge, spaced=spaced, scope=scope))
        except LimitExceeded as error:
            assert error.retry_after > 0  # noqa: PT017  it is the whole answer
            return
        mailed = sending.challenge
        self.last = sending
        assert self.now + 60.0 <= mailed.expires == self.expiries.setdefault(mailed.id, mailed.expires)
        assert mailed.expires <= self.now + LIFESPAN
        assert mailed.id not in self.used
        if spaced:
            self.mails = [at for at in self.mails if at > self.now - HOUR] + [self.now]
            assert len(self.mails) <= POLICY.sends.per_hour

    def attempt(self, scope: bytes, *, right: bool) -> None:
        live = [slot.challenge for slot in self.record.slots if slot.scope == scope] if self.record else []
        challenge = live[0] if live else None
        typed = Typed(challenge.id if right and challenge is not None else None)
        self.record, answer = POLICY.check(self.record, self.now, typed, Attempt(scope))
        if answer.result is CheckResult.VALID:
            assert challenge is not None
            assert self.now < challenge.expires
            assert challenge.id not in self.used
            self.used.add(challenge.id)
        elif answer.result is WRONG and challenge is not None and not challenge.is_long:
            self.tries[challenge.id] = self.tries.get(challenge.id, 0) + 1
            assert self.tries[challenge.id] <= POLICY.attempts
            self.failures = [at for at in self.failures if at > self.now - DAY] + [self.now]
            assert len(self.failures) <= POLICY.failures.per_day
            assert len([at for at in self.failures if at > self.now - HOUR]) <= POLICY.failures.per_hour

    def void(self, scope: bytes, *, unsend: bool) -> None:
        if unsend and self.last is not None:
            self.record, _ = POLICY.unsend(self.record, self.last)
            self.mails = self.mails[:-1]
            self.last = None
        else:
            self.record, _ = POLICY.void(self.record, scope, None)


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "attempt", "attempt", "attempt", "void", "wait"]),
        st.booleans(),
        st.sampled_from([NO_SCOPE, NO_SCOPE, SCOPE, b"scope  2", b"scope  3"]),
        st.sampled_from([0.0, 0.5, 29.0, 31.0, 61.0, 119.0, 121.0, 1700.0, 3599.0, 3601.0, 40_000.0]),
    ),
    max_size=80,
)


@settings(deadline=None, max_examples=200)
@given(_STEPS)
def test_no_sequence_of_calls_gets_past_the_rules(steps: list[tuple[str, bool, bytes, float]]) -> None:
    """No sequence of calls gets more than N attempts a code, or more failures or mails than the limits allow.

    A code that was used is never valid or mailed again, and a resend never moves an expiry.
    """
    world = _World()
    for step, flag, scope, wait in steps:
        match step:
            case "send":
                world.send(scope, spaced=flag or wait < 1000)
            case "attempt":
                world.attempt(scope, right=flag and wait > 1000)
            case "void":
                world.void(scope, unsend=flag)
            case _:
                world.now += wait
