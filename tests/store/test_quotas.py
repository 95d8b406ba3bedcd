"""Limits over many addresses in every store: counted in the step that decides, all of it or nothing."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest

from otpmail.callers import TableKey
from otpmail.code_record import STRANGERS
from otpmail.errors import LimitExceeded
from otpmail.limits.rules import stretch_of
from otpmail.model import DAY, LONG, Challenge, Check, CheckResult, Reached, Sending
from otpmail.store.challenges import Attempt, ChallengeStore, LimitStore, Quota, Send
from rules import BOOK, POLICY
from store.clocks import Clock

BLOCK = Quota("block", b"the counts of bl", 3)
CALLER = Quota("caller", b"the counts of ca", 5, warns=True)
_MAILBOX = b"mailbox no tag  "
_HOURLY = Quota("mails_per_hour", b"mails in an hour", 3, warns=True)
_DAILY = Quota("mails_per_day", b"mails in one day", 5, warns=True, stretch=stretch_of(DAY))
LIFE = 600.0
HOUR_AND_STRETCH = 3900.0


async def _send(codes: ChallengeStore, clock: Clock, number: int, *quotas: Quota, call: int = 1) -> Sending:
    fresh = Challenge((1000 * number + call).to_bytes(16), "k1", clock.time + LIFE, length=6)
    return await codes.send(Send(f"address {number:08d}".encode(), clock.time, fresh, quotas=quotas))


async def test_mails_to_many_addresses_are_limited(codes: ChallengeStore, clock: Clock) -> None:
    """The mails of one block are limited over all addresses; the refusal names the limit, its setting and the time."""
    for number in range(3):
        await _send(codes, clock, number, BLOCK)
    with pytest.raises(LimitExceeded) as refused:
        await _send(codes, clock, 3, BLOCK)
    error = refused.value
    assert (error.subject, error.setting) == ("block", "OTP_SENDS_PER_BLOCK_HOUR")
    assert 3300 < error.retry_after <= HOUR_AND_STRETCH
    await _send(codes, clock, 4)
    clock.time += error.retry_after - 1
    with pytest.raises(LimitExceeded):
        await _send(codes, clock, 5, BLOCK)
    clock.time += 1
    await _send(codes, clock, 6, BLOCK)


async def test_a_refusal_names_the_key_of_a_caller(codes: ChallengeStore, clock: Clock) -> None:
    """A limit that the table of a caller sets is named by its key and table, for mails and for checks."""
    place = "[callers.shop] of CALLERS_FILE"
    caller = CALLER._replace(most=1, named=TableKey("codes_per_hour", place))
    guesses = Quota("guesses", b"the counts of gu", 1, named=TableKey("guesses_per_hour", place))
    sending = await _send(codes, clock, 1, BLOCK, caller)
    with pytest.raises(LimitExceeded) as refused:
        await _send(codes, clock, 2, BLOCK, caller)
    assert str(refused.value) == f"this caller has had too many codes mailed in an hour (codes_per_hour in {place})"
    assert refused.value.setting == "codes_per_hour"
    await _check(codes, clock, sending, 1, guesses, by=1)
    with pytest.raises(LimitExceeded) as refused:
        await _check(codes, clock, sending, 1, guesses, by=0)
    assert str(refused.value) == f"this caller has had too many wrong codes in an hour (guesses_per_hour in {place})"
    assert (refused.value.setting, refused.value.limit) == ("guesses_per_hour", "guesses")


async def test_what_is_refused_uses_nothing_up(codes: ChallengeStore, clock: Clock) -> None:
    """A mail that one limit refuses counts for no other, and its address need not wait."""
    for number in range(3):
        await _send(codes, clock, number, BLOCK, CALLER)
    for _ in range(3):
        with pytest.raises(LimitExceeded, match="client_ip"):
            await _send(codes, clock, 9, BLOCK, CALLER)
    await _send(codes, clock, 9, CALLER)
    await _send(codes, clock, 10, CALLER)
    with pytest.raises(LimitExceeded, match="this caller"):
        await _send(codes, clock, 11, CALLER)


@pytest.mark.parametrize("first", ["block", "caller", "resend", "mailbox"])
@pytest.mark.parametrize("last", ["block", "caller", "mailbox"])
async def test_after_a_refusal_the_mail_is_sent_in_its_time(
    codes: ChallengeStore, clock: Clock, first: str, last: str
) -> None:
    """Of two limits that refuse a mail, the one that lasts longest is named: no other refuses it then."""
    quotas = {"block": BLOCK._replace(most=1), "caller": CALLER._replace(most=1)}
    numbers = itertools.count(1)

    async def send(key: bytes, *quotas: Quota, mailbox: bytes = b"") -> None:
        fresh = Challenge(next(numbers).to_bytes(16), "k1", clock.time + LIFE, length=6)
        await codes.send(Send(key, clock.time, fresh, quotas=quotas, mailbox=mailbox))

    async def use_up(limit: str) -> None:
        if limit == "resend":
            await send(b"address 00000001")
        elif limit == "mailbox":
            for number in range(POLICY.sends.per_hour):
                await send(f"tag {number:012d}".encode(), mailbox=_MAILBOX)
        else:
            await send(b"address 00000002", quotas[limit])
            clock.time += POLICY.resend

    async def asked() -> None:
        await send(b"address 00000001", *quotas.values(), mailbox=_MAILBOX)

    await use_up(first)
    clock.time += 10 if first == "resend" else 700
    if first != last:
        await use_up(last)
    with pytest.raises(LimitExceeded) as refused:
        await asked()
    assert refused.value.subject == {"mailbox": "address"}.get(last, last)
    clock.time += refused.value.retry_after - 1
    with pytest.raises(LimitExceeded) as again:
        await asked()
    assert (again.value.setting, again.value.retry_after) == (refused.value.setting, 1.0)
    clock.time += 1
    await asked()


@pytest.mark.parametrize("limit", ["address", "device", "block", "caller", "mailbox"])
async def test_the_last_mail_of_a_limit_says_when_the_next_may_go(
    codes: ChallengeStore, clock: Clock, limit: str
) -> None:
    """The mail that uses a limit up says until when: a second before that the next is refused, and then it is not."""
    numbers = itertools.count(1)
    device = b"a device" if limit == "device" else STRANGERS

    async def send(key: bytes) -> Sending:
        fresh = Challenge(next(numbers).to_bytes(16), "k1", clock.time + LIFE, length=6)
        asked = Send(key, clock.time, fresh, quotas=(BLOCK,) if limit == "block" else (), device=device)
        asked = asked._replace(quotas=(CALLER._replace(most=2),)) if limit == "caller" else asked
        return await codes.send(asked._replace(mailbox=_MAILBOX if limit == "mailbox" else b""))

    most = {"block": 3, "caller": 2}.get(limit, POLICY.sends.per_hour)
    for number in range(most):
        key = b"address 00000001" if limit in {"address", "device"} else f"address {number:08d}".encode()
        sending = await send(key)
        assert (sending.spent_until > 0) is (number == most - 1)
        clock.time += POLICY.resend
    clock.time = sending.spent_until - 1
    with pytest.raises(LimitExceeded) as refused:
        await send(b"address 00000001")
    assert (refused.value.subject, refused.value.retry_after) == ({"mailbox": "address"}.get(limit, limit), 1.0)
    clock.time += 1
    await send(b"address 00000001")


@pytest.mark.parametrize("with_guesses", [False, True])
async def test_a_check_knows_the_limits_of_the_mailbox(
    codes: ChallengeStore,
    clock: Clock,
    with_guesses: bool,  # noqa: FBT001
) -> None:
    """Without attempts, the time for a new code of an address with a tag is one at which its mailbox lets it go."""
    quotas = (Quota("guesses", b"the counts of gu", 100),) if with_guesses else ()
    numbers = itertools.count(1)

    async def send(key: bytes) -> Sending:
        fresh = Challenge(next(numbers).to_bytes(16), "k1", clock.time + LIFE, length=6)
        return await codes.send(Send(key, clock.time, fresh, mailbox=_MAILBOX))

    for number in range(POLICY.sends.per_hour):
        sending = await send(f"tag {number:012d}".encode())
    key = f"tag {POLICY.sends.per_hour - 1:012d}".encode()
    attempt = Attempt(quotas=quotas, mailbox=_MAILBOX)
    for _ in range(POLICY.attempts + 1):
        check = await codes.check(key, clock.time, BOOK.guess("000000"), attempt)
    assert check.result is CheckResult.TOO_MANY_ATTEMPTS
    assert check.retry_time == sending.spent_until
    clock.time = check.retry_time - 1
    with pytest.raises(LimitExceeded):
        await send(key)
    clock.time += 1
    await send(key)


async def test_a_limit_in_shadow_lets_the_next_mail_go(codes: ChallengeStore, clock: Clock) -> None:
    """A mail that uses up a limit in shadow, or one of the original's contract, names no time for that."""
    shadows = replace(POLICY, shadows=frozenset({"address"}))
    for number in range(POLICY.sends.per_hour + 1):
        fresh = Challenge(bytes([number]) * 16, "k1", clock.time + LIFE, length=6)
        asked = Send(b"address 00000001", clock.time, fresh, mailbox=_MAILBOX, quotas=(BLOCK._replace(is_shadow=True),))
        sending = await codes.send(asked._replace(rules=shadows, compat=number % 2 == 1))
        assert sending.spent_until == 0.0
        clock.time += POLICY.resend


async def test_an_address_that_is_refused_counts_for_no_limit(codes: ChallengeStore, clock: Clock) -> None:
    """A mail that comes too soon after the last one to its address counts for no limit over many."""
    await _send(codes, clock, 1, BLOCK)
    for call in range(2, 7):
        with pytest.raises(LimitExceeded, match="just now"):
            await _send(codes, clock, 1, BLOCK, call=call)
    for number in (2, 3):
        await _send(codes, clock, number, BLOCK)


async def test_a_mail_that_was_not_sent_counts_for_no_limit(codes: ChallengeStore, clock: Clock) -> None:
    """A mail that was not sent is taken back once, however often that is asked."""
    sendings = [await _send(codes, clock, number, BLOCK) for number in range(3)]
    clock.time += 700
    for _ in range(3):
        await codes.unsend(b"address 00000001", sendings[1])
    clock.time -= 690
    await codes.unsend(b"address 00000001", sendings[1])
    await _send(codes, clock, 4, BLOCK)
    with pytest.raises(LimitExceeded):
        await _send(codes, clock, 5, BLOCK)


async def test_a_limit_in_shadow_refuses_nothing(codes: ChallengeStore, clock: Clock) -> None:
    """A limit in shadow says of each mail that it would have refused it, and counts it."""
    shadow = BLOCK._replace(is_shadow=True)
    said = [(await _send(codes, clock, number, shadow)).reached for number in range(5)]
    assert said == [(), (), (), (Reached("block", 100),), (Reached("block", 100),)]
    with pytest.raises(LimitExceeded):
        await _send(codes, clock, 6, BLOCK)


async def test_a_limit_warns_once_at_each_level(codes: ChallengeStore, clock: Clock) -> None:
    """A limit that warns says so at half and at four fifths of it."""
    said = [(await _send(codes, clock, number, CALLER)).reached for number in range(5)]
    assert said == [(), (), (Reached("caller", 50),), (Reached("caller", 80),), ()]


async def test_a_call_that_asks_again_counts_once(codes: ChallengeStore, clock: Clock) -> None:
    """A call that asks again with the same challenge, since its answer was lost, counts once."""
    for _ in range(5):
        again = await _send(codes, clock, 1, BLOCK)
        assert again.counted == (BLOCK.key,)
    await _send(codes, clock, 2, BLOCK)
    await _send(codes, clock, 3, BLOCK)


@pytest.mark.parametrize("limit", ["address", "block", "caller", "mailbox"])
async def test_a_call_that_asks_again_has_the_same_answer(codes: ChallengeStore, clock: Clock, limit: str) -> None:
    """A call that asks again names the time of the first answer, whichever limit its mail has used up."""
    quotas = {"block": (BLOCK, CALLER), "caller": (BLOCK, CALLER._replace(most=3))}.get(limit, ())
    mailbox = _MAILBOX if limit == "mailbox" else b""

    async def send(number: int) -> Sending:
        fresh = Challenge((number + 1).to_bytes(16), "k1", clock.time + LIFE, length=6)
        key = b"address 00000001" if limit == "address" else f"address {number:08d}".encode()
        return await codes.send(Send(key, clock.time, fresh, quotas=quotas, mailbox=mailbox))

    most = 3 if quotas else POLICY.sends.per_hour
    for number in range(most):
        sending = await send(number)
        again = await send(number)
        assert (again.next_send, again.spent_until) == (sending.next_send, sending.spent_until)
        assert (sending.spent_until > 0) is (number == most - 1)
        clock.time += POLICY.resend


@pytest.mark.parametrize("limit", ["address", "block", "mailbox"])
async def test_a_call_that_asks_again_names_no_limit_in_shadow(codes: ChallengeStore, clock: Clock, limit: str) -> None:
    """A call that asks again names no time for a limit that refuses nothing."""
    rules = replace(POLICY, shadows=frozenset({"address"}))
    quotas = (BLOCK._replace(is_shadow=True),) if limit == "block" else ()
    mailbox = _MAILBOX if limit == "mailbox" else b""
    for number in range(POLICY.sends.per_hour):
        fresh = Challenge((number + 1).to_bytes(16), "k1", clock.time + LIFE, length=6)
        key = b"address 00000001" if limit == "address" else f"address {number:08d}".encode()
        asked = Send(key, clock.time, fresh, quotas=quotas, mailbox=mailbox, rules=rules)
        assert [(await codes.send(asked)).spent_until for _ in range(2)] == [0, 0]
        clock.time += POLICY.resend


async def _send_to_tag(codes: ChallengeStore, clock: Clock, number: int) -> Sending:
    fresh = Challenge(number.to_bytes(16), "k1", clock.time + LIFE, length=6)
    return await codes.send(Send(f"tag {number:012d}".encode(), clock.time, fresh, mailbox=_MAILBOX))


async def test_tags_share_the_limits_of_mails(codes: ChallengeStore, clock: Clock) -> None:
    """Mails to addresses with tags, and to the one without, share its limits; one that was not sent is taken back."""
    for number in range(POLICY.sends.per_hour - 1):
        sending = await _send_to_tag(codes, clock, number)
    fresh = Challenge((500).to_bytes(16), "k1", clock.time + LIFE, length=6)
    await codes.send(Send(_MAILBOX, clock.time, fresh))
    with pytest.raises(LimitExceeded) as refused:
        await _send_to_tag(codes, clock, 90)
    assert (refused.value.subject, refused.value.setting) == ("address", "OTP_SENDS_PER_HOUR")
    await codes.unsend(f"tag {number:012d}".encode(), sending)
    await _send_to_tag(codes, clock, 91)
    clock.time += POLICY.resend
    with pytest.raises(LimitExceeded):
        await codes.send(Send(_MAILBOX, clock.time, Challenge((501).to_bytes(16), "k1", clock.time + LIFE, length=6)))


async def test_a_tag_that_is_forgotten_counts_for_its_mailbox_no_more(codes: ChallengeStore, clock: Clock) -> None:
    """The mails of a forgotten address leave the limits of its mailbox; those of others, codes and failures stay."""
    own = await codes.send(Send(_MAILBOX, clock.time, Challenge((500).to_bytes(16), "k1", clock.time + LIFE, length=6)))
    wrong = f"{(int(BOOK.code(own.challenge)) + 1) % 10**6:06d}"
    await codes.check(_MAILBOX, clock.time, BOOK.guess(wrong))
    for number in range(3):
        clock.time += POLICY.resend
        await _send_to_tag(codes, clock, number % 2)
    assert [budget.spent for budget in await codes.budgets(_MAILBOX)] == [1, 1, 4, 4]
    await codes.forget(b"tag 000000000000", mailbox=_MAILBOX)
    assert await codes.budgets(b"tag 000000000000") == ()
    assert [budget.spent for budget in await codes.budgets(_MAILBOX)] == [1, 1, 2, 2]
    await codes.forget(b"tag 000000000000", mailbox=_MAILBOX)
    await codes.forget(b"tag 000000000001", mailbox=_MAILBOX)
    assert [budget.spent for budget in await codes.budgets(_MAILBOX)] == [1, 1, 1, 1]
    answer = await codes.check(_MAILBOX, clock.time, BOOK.guess(BOOK.code(own.challenge)))
    assert answer.result is CheckResult.VALID
    await codes.forget(b"tag 000000000009", mailbox=b"a mailbox unknown")


async def test_tags_share_nothing_else(codes: ChallengeStore, clock: Clock) -> None:
    """An address with a tag and the one without it have live codes of their own, and wrong codes count apart."""
    sending = await _send_to_tag(codes, clock, 1)
    code = BOOK.code(sending.challenge)
    assert (await codes.check(_MAILBOX, clock.time, BOOK.guess(code))).result is CheckResult.NO_LIVE_CODE
    assert [budget.setting for budget in await codes.budgets(_MAILBOX)] == ["OTP_SENDS_PER_HOUR", "OTP_SENDS_PER_DAY"]
    assert (await codes.check(b"tag 000000000001", clock.time, BOOK.guess(code))).result is CheckResult.VALID


async def test_two_hundred_at_once(replicas: Sequence[ChallengeStore], clock: Clock) -> None:
    """Of 200 mails at once through all replicas, exactly as many go as the limit allows."""
    calls = [_send(replicas[number % len(replicas)], clock, number, BLOCK) for number in range(200)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(answer, Sending) for answer in answers) == BLOCK.most
    assert sum(isinstance(answer, LimitExceeded) for answer in answers) == 200 - BLOCK.most


async def test_limits_of_other_keys_are_apart(codes: ChallengeStore, clock: Clock) -> None:
    """A block that is at its limit takes nothing from another."""
    for number in range(3):
        await _send(codes, clock, number, BLOCK)
    with pytest.raises(LimitExceeded):
        await _send(codes, clock, 4, BLOCK)
    assert await _send(codes, clock, 4, BLOCK._replace(key=b"another block's"))


async def _check(codes: ChallengeStore, clock: Clock, sending: Sending, number: int, *quotas: Quota, by: int) -> Check:
    typed = f"{(int(BOOK.code(sending.challenge)) + by) % 10**6:06d}"
    attempt = Attempt(quotas=quotas)
    return await codes.check(f"address {number:08d}".encode(), clock.time, BOOK.guess(typed), attempt)


async def test_wrong_codes_at_many_addresses_are_limited(codes: ChallengeStore, clock: Clock) -> None:
    """Wrong codes count over all addresses of a caller, with an event; right ones, and no code at all, do not count."""
    quota = Quota("guesses", b"the counts of gu", 4, warns=True)
    sendings = [await _send(codes, clock, number) for number in range(6)]
    said = [(await _check(codes, clock, sendings[number], number, quota, by=1)).reached for number in range(3)]
    assert said == [(), (Reached("guesses", 50),), ()]
    right = await _check(codes, clock, sendings[3], 3, quota, by=0)
    none = await _check(codes, clock, sendings[3], 3, quota, by=0)
    assert (right.result, none.result) == (CheckResult.VALID, CheckResult.NO_LIVE_CODE)
    last = await _check(codes, clock, sendings[4], 4, quota, by=1)
    assert last.reached == (Reached("guesses", 80),)
    with pytest.raises(LimitExceeded) as refused:
        await _check(codes, clock, sendings[5], 5, quota, by=0)
    assert (refused.value.subject, refused.value.setting) == ("caller", "OTP_FAILURES_PER_CALLER_HOUR")
    shadow = quota._replace(is_shadow=True)
    beyond = await _check(codes, clock, sendings[5], 5, shadow, by=1)
    assert (beyond.attempts_left, beyond.reached) == (POLICY.attempts - 1, (Reached("guesses", 100),))
    assert (await _check(codes, clock, sendings[5], 5, by=0)).result is CheckResult.VALID


@pytest.mark.parametrize("device", [STRANGERS, b"device 1"])
async def test_a_long_code_is_not_refused_for_wrong_codes_elsewhere(
    codes: ChallengeStore, clock: Clock, device: bytes
) -> None:
    """With the guesses of a caller used up, a live long code is checked as before; wrong tries of it do not count.

    Any other check of strangers is refused, also one that is bound to another challenge.
    """
    quota = Quota("guesses", b"the counts of gu", 1, warns=True)
    short = await _send(codes, clock, 1)
    assert (await _check(codes, clock, short, 1, quota, by=1)).reached == (Reached("guesses", 80),)
    long = Challenge((2000).to_bytes(16), "k1", clock.time + LIFE, length=LONG)
    key = b"address 00000002"
    await codes.send(Send(key, clock.time, long, device=device))
    attempt = Attempt(device=device, quotas=(quota,))
    if device == STRANGERS:
        with pytest.raises(LimitExceeded, match="wrong codes"):
            await codes.check(key, clock.time, BOOK.guess(BOOK.code(long)), attempt._replace(only=bytes(16)))
    wrong = Check(CheckResult.WRONG_CODE, POLICY.attempts)
    for _ in range(POLICY.attempts + 1):
        assert await codes.check(key, clock.time, BOOK.guess("ABCDEFGHJKLM"), attempt) == wrong
        assert await codes.check(key, clock.time, BOOK.guess("123456"), attempt) == wrong
    assert (await codes.check(key, clock.time, BOOK.guess(BOOK.code(long)), attempt)).result is CheckResult.VALID
    with pytest.raises(LimitExceeded, match="wrong codes"):
        await _check(codes, clock, short, 1, quota, by=0)


async def test_devices_beyond_those_with_lanes_are_limited_as_strangers(codes: ChallengeStore, clock: Clock) -> None:
    """With the guesses of a caller used up, a device with a lane of its own is checked, and a seventeenth is refused.

    Wrong codes of the former do not count for the caller, those of the latter do.
    """
    quota = Quota("guesses", b"the counts of gu", 2)
    key, devices = b"address 00000001", [b"device%02d" % number for number in range(17)]
    sent = {
        device: await codes.send(
            Send(
                key, clock.time, Challenge((number + 1).to_bytes(16), "k1", clock.time + LIFE, length=6), device=device
            )
        )
        for number, device in enumerate(devices)
    }

    async def check(device: bytes, by: int) -> CheckResult:
        typed = f"{(int(BOOK.code(sent[device].challenge)) + by) % 10**6:06d}"
        return (await codes.check(key, clock.time, BOOK.guess(typed), Attempt(device=device, quotas=(quota,)))).result

    for device in (*devices[:4], devices[16], devices[16]):
        assert await check(device, 1) is CheckResult.WRONG_CODE
    with pytest.raises(LimitExceeded, match="wrong codes"):
        await check(devices[16], 0)
    assert await check(devices[0], 0) is CheckResult.VALID
    assert await check(devices[16], 0) is CheckResult.VALID  # in the place that is free now


def test_the_time_that_a_mail_was_counted_at() -> None:
    """A mail is taken back from the stretch in which it was sent."""
    assert POLICY.uncount(((11, 1), (12, 1)), 3599.0 + POLICY.resend) == (((12, 1),), 7500.0)
    assert POLICY.uncount(((12, 1), (23, 1)), 3599.0 + POLICY.resend) == (((12, 1),), 7500.0)  # a clock was set back
    assert POLICY.uncount(((13, 1), (24, 1)), 3599.0 + POLICY.resend) == (((13, 1), (24, 1)), 11100.0)


async def test_mails_of_a_caller(codes: LimitStore, clock: Clock) -> None:
    """Mails without codes count for both rates or for neither, and one that was not accepted is taken back."""
    began = clock.time
    for _ in range(3):
        await codes.count((_HOURLY, _DAILY))
    with pytest.raises(LimitExceeded, match="in an hour") as refused:
        await codes.count((_DAILY, _HOURLY))
    with pytest.raises(LimitExceeded, match="in a day"):
        await codes.count((_HOURLY, _DAILY._replace(most=3)))
    assert (refused.value.subject, refused.value.setting) == ("caller", "mails_per_hour")
    clock.time += refused.value.retry_after
    when, _ = await codes.count((_HOURLY, _DAILY))
    await codes.uncount((_HOURLY, _DAILY), when)
    _, reached = await codes.count((_HOURLY, _DAILY))
    assert reached == (Reached("mails_per_day", 80),)
    await codes.count((_DAILY,))
    with pytest.raises(LimitExceeded, match="in a day") as refused:
        await codes.count((_DAILY,))
    assert DAY <= clock.time + refused.value.retry_after - began <= DAY + _DAILY.stretch


async def test_a_rate_in_shadow(codes: LimitStore) -> None:
    """A rate in shadow counts on, and says each time that it would have refused."""
    shadow = _HOURLY._replace(is_shadow=True)
    reached = [(await codes.count((shadow,)))[1] for _ in range(5)]
    assert reached[3:] == [(Reached("mails_per_hour", 100),)] * 2


async def test_mails_of_a_caller_at_once(replicas: Sequence[LimitStore]) -> None:
    """Of 200 mails at once through all replicas, exactly as many count as the rate has."""
    calls = [replicas[number % len(replicas)].count((_HOURLY,)) for number in range(200)]
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(end, LimitExceeded) for end in ends) == 200 - _HOURLY.most
