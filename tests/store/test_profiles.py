"""The terms that a profile sets for a code, in every store: its record holds them, so a change breaks no live code."""

from dataclasses import replace

import pytest

from otpmail.callers import TableKey
from otpmail.errors import LimitExceeded
from otpmail.limits.rules import Windows
from otpmail.model import FIXED_KEY, LETTERS, Challenge, CheckResult
from otpmail.otp.policy import Policy
from otpmail.store.challenges import Attempt, ChallengeStore, Send
from rules import BOOK, POLICY
from store.clocks import Clock

KEY = b"the record of ad"
FIXED = "424242"


def _send(clock: Clock, *, key_id: str = "k1", length: int = LETTERS + 5, most: int = 2, call: int = 1) -> Send:
    fresh = Challenge(call.to_bytes(16), key_id, clock.time + 90.0, length=length, most=most)
    return Send(KEY, clock.time, fresh)


async def test_a_record_holds_the_terms_of_its_code(codes: ChallengeStore, clock: Clock) -> None:
    """The form, the life and the attempts of a code are those that it was issued with."""
    sending = await codes.send(_send(clock))
    assert (sending.challenge.length, sending.challenge.most) == (LETTERS + 5, 2)
    code = BOOK.code(sending.challenge)
    assert len(code) == 5
    no_code = await codes.check(KEY, clock.time, BOOK.guess("123456"))
    assert (no_code.result, no_code.attempts_left) == (CheckResult.WRONG_CODE, 2)
    wrong = await codes.check(KEY, clock.time, BOOK.guess("22222" if code != "22222" else "33333"))
    assert (wrong.result, wrong.attempts_left) == (CheckResult.WRONG_CODE, 1)
    clock.time += 60
    again = await codes.send(_send(clock, length=6, most=9, call=2))
    assert (again.challenge.length, again.challenge.most) == (6, 2)  # a new code near the end: with the attempts before
    clock.time += 29
    assert (await codes.check(KEY, clock.time, BOOK.guess(BOOK.code(again.challenge)))).result is CheckResult.VALID


async def test_the_rules_of_a_profile(codes: ChallengeStore, clock: Clock) -> None:
    """Rules that come with a call count in place of the store's, on the same record."""
    strict = replace(POLICY, failures=Windows(1, 1, 30), sends=Windows(2, 2, 30), wait=60.0, locks=True)
    await codes.send(_send(clock)._replace(rules=strict))
    clock.time += 89
    with pytest.raises(LimitExceeded, match="just now"):
        await codes.send(_send(clock, call=2)._replace(rules=strict))
    await codes.send(_send(clock, call=3))
    clock.time += 90
    with pytest.raises(LimitExceeded, match="mailed for this address"):
        await codes.send(_send(clock, call=4)._replace(rules=strict))
    await codes.send(_send(clock, length=6, most=5, call=5))
    wrong = BOOK.guess("000000")
    assert (await codes.check(KEY, clock.time, wrong)).result is CheckResult.WRONG_CODE
    assert (await codes.check(KEY, clock.time, wrong, Attempt(rules=strict))).result is CheckResult.TOO_MANY_ATTEMPTS
    assert (await codes.check(KEY, clock.time, wrong)).result is CheckResult.WRONG_CODE


async def test_a_refusal_names_the_key_of_a_profile(codes: ChallengeStore, clock: Clock) -> None:
    """A limit that a profile sets is named by its key and table, another by its setting."""
    place = "[callers.shop.profiles.login] of CALLERS_FILE"
    keys = {key: TableKey(f"profiles.login.{key}", place) for key in ("resend", "sends_per_day", "failures_per_hour")}
    rules = replace(POLICY, failures=Windows(1, 30), sends=Windows(2, 2, 30), wait=30.0, locks=True, table_keys=keys)
    hourly = replace(rules, sends=Windows(2, 30, 30))

    async def refused(rules: Policy, call: int) -> tuple[str, str]:
        with pytest.raises(LimitExceeded) as caught:
            await codes.send(_send(clock, call=call)._replace(rules=rules))
        return str(caught.value), caught.value.setting

    await codes.send(_send(clock)._replace(rules=rules))
    just_now = f"a code was mailed to this address just now (resend in {place})"
    assert await refused(rules, 2) == (just_now, "profiles.login.resend")
    clock.time += 60
    await codes.send(_send(clock, call=3)._replace(rules=rules))
    clock.time += 60
    daily = f"too many codes were mailed for this address in a day (sends_per_day in {place})"
    assert await refused(rules, 4) == (daily, "profiles.login.sends_per_day")
    an_hour = "too many codes were mailed for this address in an hour"
    assert await refused(hourly, 4) == (an_hour, "OTP_SENDS_PER_HOUR")
    await codes.check(KEY, clock.time, BOOK.guess("22222"))
    wrong = f"too many wrong codes for this address in an hour (failures_per_hour in {place})"
    assert await refused(replace(rules, sends=POLICY.sends), 5) == (wrong, "profiles.login.failures_per_hour")


async def test_a_fixed_code(codes: ChallengeStore, clock: Clock) -> None:
    """A fixed code is compared for those alone who ask for one, and is valid once."""
    await codes.send(_send(clock, key_id=FIXED_KEY, length=6))
    assert (await codes.check(KEY, clock.time, BOOK.guess(FIXED))).result is CheckResult.WRONG_CODE
    assert (await codes.check(KEY, clock.time, BOOK.guess_fixed("424243", FIXED))).result is CheckResult.WRONG_CODE
    clock.time += 90
    await codes.send(_send(clock, key_id=FIXED_KEY, length=6, call=2))
    right = BOOK.guess_fixed("424-242", FIXED)
    assert (await codes.check(KEY, clock.time, right)).result is CheckResult.VALID
    assert (await codes.check(KEY, clock.time, right)).result is CheckResult.NO_LIVE_CODE


async def test_a_code_of_a_mail_where_a_fixed_one_is_asked_for(codes: ChallengeStore, clock: Clock) -> None:
    """A code that was mailed before the address became a test address stays valid, and the fixed one is wrong."""
    sending = await codes.send(_send(clock, length=6))
    code = BOOK.code(sending.challenge)
    assert (await codes.check(KEY, clock.time, BOOK.guess_fixed(FIXED, FIXED))).result is CheckResult.WRONG_CODE
    assert (await codes.check(KEY, clock.time, BOOK.guess_fixed(code, FIXED))).result is CheckResult.VALID
