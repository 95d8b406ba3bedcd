"""Decisions about codes in every store: what is sent, what is valid once, what counts, what is taken back."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from otpmail.code_record import STRANGERS
from otpmail.errors import LimitExceeded
from otpmail.model import LONG, Challenge, Check, CheckResult, Sending
from otpmail.store.challenges import NO_SCOPE, Attempt, ChallengeStore, Send
from rules import BOOK, POLICY
from store.clocks import Clock

KEY = b"the record of ad"
LIFE = 600.0
VALID, NO_LIVE_CODE = Check(CheckResult.VALID), Check(CheckResult.NO_LIVE_CODE)


def _fresh(number: int, clock: Clock) -> Challenge:
    return Challenge(number.to_bytes(16), "k1", clock.time + LIFE, length=6)


async def _send(
    codes: ChallengeStore, clock: Clock, number: int = 1, *, key: bytes = KEY, compat: bool = False
) -> Sending:
    return await codes.send(Send(key, clock.time, _fresh(number, clock), compat=compat))


async def _check(
    codes: ChallengeStore,
    clock: Clock,
    typed: str,
    *,
    only: bytes | None = None,
    key: bytes = KEY,
    compat: bool = False,
) -> Check:
    return without_token(await codes.check(key, clock.time, BOOK.guess(typed), Attempt(only=only, compat=compat)))


def without_token(check: Check) -> Check:
    """Return a check without what a device token is made of."""
    return replace(check, device=b"", time=0.0)


def _code(sending: Sending) -> str:
    return BOOK.code(sending.challenge)


def _wrong(sending: Sending) -> str:
    return f"{(int(_code(sending)) + 1) % 10**6:06d}"


async def test_a_code_is_valid_once(codes: ChallengeStore, clock: Clock) -> None:
    """The right code is valid for the first check, and is no live code for the second."""
    sending = await _send(codes, clock)
    assert sending == Sending(_fresh(1, clock), clock.time + POLICY.resend)
    assert await _check(codes, clock, _code(sending)) == VALID
    assert await _check(codes, clock, _code(sending)) == NO_LIVE_CODE
    assert (await _send(codes, clock, 2)).challenge.id == _fresh(2, clock).id


async def test_wrong_codes_are_counted(codes: ChallengeStore, clock: Clock) -> None:
    """Each wrong code costs an attempt until none is left; the right one comes too late then."""
    sending = await _send(codes, clock)
    for left in (4, 3, 2, 1, 0):
        assert await _check(codes, clock, _wrong(sending)) == Check(CheckResult.WRONG_CODE, left)
    spent = Check(CheckResult.TOO_MANY_ATTEMPTS, 0, clock.time + POLICY.resend)
    assert await _check(codes, clock, _code(sending)) == spent
    assert await _check(codes, clock, "no code") == spent


async def test_a_text_that_is_no_code_costs_nothing(codes: ChallengeStore, clock: Clock) -> None:
    """A text of another length is wrong, and leaves all attempts."""
    sending = await _send(codes, clock)
    for _ in range(10):
        assert await _check(codes, clock, "12345") == Check(CheckResult.WRONG_CODE, 5)
    assert await _check(codes, clock, _code(sending)) == VALID


async def test_a_check_bound_to_another_challenge(codes: ChallengeStore, clock: Clock) -> None:
    """A check that names a challenge tries that one alone, and costs nothing where it is not live."""
    sending = await _send(codes, clock)
    assert await _check(codes, clock, _code(sending), only=bytes(16)) == NO_LIVE_CODE
    assert await _check(codes, clock, _code(sending), only=sending.challenge.id) == VALID


async def test_an_expired_code(codes: ChallengeStore, clock: Clock) -> None:
    """A code ends at its expiry, to the moment."""
    sending = await _send(codes, clock)
    clock.time += LIFE - 0.001
    assert await _check(codes, clock, _wrong(sending)) == Check(CheckResult.WRONG_CODE, 4)
    clock.time += 0.001
    assert await _check(codes, clock, _code(sending)) == NO_LIVE_CODE


async def test_mails_are_spaced(codes: ChallengeStore, clock: Clock) -> None:
    """A second mail too soon is refused with the time that is left; later the same code goes again."""
    first = await _send(codes, clock)
    clock.time += 10
    with pytest.raises(LimitExceeded, match="a code was mailed to this address just now") as caught:
        await _send(codes, clock, 2)
    assert (caught.value.subject, caught.value.retry_after) == ("address", 20.0)
    unspaced = await codes.send(Send(KEY, clock.time, _fresh(2, clock), spaced=False))
    assert unspaced.challenge == first.challenge
    clock.time += 30
    assert (await _send(codes, clock, 2)).challenge == first.challenge


async def test_too_many_wrong_codes_in_an_hour(codes: ChallengeStore, clock: Clock) -> None:
    """The failures of an address count over all its codes, and end an hour after they were made.

    Meanwhile the original's contract has no code, and the other one a long one.
    """
    began = clock.time
    for number in (1, 2):
        sending = await _send(codes, clock, number)
        for _ in range(POLICY.attempts):
            await _check(codes, clock, _wrong(sending))
        clock.time += POLICY.resend
    with pytest.raises(LimitExceeded, match="too many wrong codes") as caught:
        await _send(codes, clock, 3, compat=True)
    assert caught.value.retry_after == began + 3600 - clock.time
    told = Check(CheckResult.TOO_MANY_ATTEMPTS, 0, began + 3600, limit="failures_per_hour")
    assert await _check(codes, clock, "123456", compat=True) == told
    long = await _send(codes, clock, 4)
    assert long.challenge == replace(_fresh(4, clock), length=LONG)
    assert await _check(codes, clock, "ABCDEFGHJKLM") == Check(CheckResult.WRONG_CODE, 5)
    assert await _check(codes, clock, _code(long).lower()) == VALID
    clock.time = began + 3600
    assert (await _send(codes, clock, 3)).challenge.id == _fresh(3, clock).id


async def test_a_void_code(codes: ChallengeStore, clock: Clock) -> None:
    """A code that was voided is not live; its failures stay."""
    sending = await _send(codes, clock)
    await _check(codes, clock, _wrong(sending))
    await codes.void(KEY, NO_SCOPE, bytes(16))
    assert await _check(codes, clock, _wrong(sending)) == Check(CheckResult.WRONG_CODE, 3)
    await codes.void(KEY, NO_SCOPE, sending.challenge.id)
    assert await _check(codes, clock, _code(sending)) == NO_LIVE_CODE
    await codes.void(KEY, NO_SCOPE, None)
    await codes.void(b"nobody's", NO_SCOPE, None)
    for number in (2, 3):
        clock.time += POLICY.resend
        sending = await _send(codes, clock, number)
        for _ in range(4):
            await _check(codes, clock, _wrong(sending))
        await codes.void(KEY, NO_SCOPE, None)
    clock.time += POLICY.resend
    with pytest.raises(LimitExceeded, match="too many wrong codes"):
        await _send(codes, clock, 4, compat=True)


async def test_a_mail_that_was_not_sent(codes: ChallengeStore, clock: Clock) -> None:
    """The next mail may go at once where none was sent, with the same code."""
    sending = await _send(codes, clock)
    await codes.unsend(KEY, sending)
    again = await _send(codes, clock, 2)
    assert again.challenge == sending.challenge
    clock.time += POLICY.resend
    await _send(codes, clock, 3)
    await codes.unsend(KEY, again)  # a later one was sent
    with pytest.raises(LimitExceeded):
        await _send(codes, clock, 4)


async def test_a_call_that_asks_again(codes: ChallengeStore, clock: Clock) -> None:
    """A call that repeats its question, since the answer was lost, has the answer again; another one has to wait."""
    first = await _send(codes, clock)
    assert await _send(codes, clock) == first
    clock.time += POLICY.resend
    again = await _send(codes, clock, 2)
    assert again.challenge == first.challenge
    clock.time += 1
    assert await _send(codes, clock, 2) == again
    with pytest.raises(LimitExceeded, match="mailed to this address just now"):
        await _send(codes, clock, 3)


async def test_a_code_stays_replaced_while_a_mail_with_its_successor_may_have_been_sent(
    codes: ChallengeStore, clock: Clock
) -> None:
    """The old code is not live again as long as one mail with the new one is not known to be unsent."""
    await _send(codes, clock)
    clock.time += LIFE / 2 + 1
    new = await _send(codes, clock, 2)
    clock.time += POLICY.resend
    resent = await _send(codes, clock, 3)
    for _ in range(2):
        await codes.unsend(KEY, resent)
    assert await _check(codes, clock, _code(new)) == VALID


async def test_a_replaced_code_is_live_again(codes: ChallengeStore, clock: Clock) -> None:
    """Where neither mail with the new code was sent the old one counts again, with the attempts that are left."""
    old = await _send(codes, clock)
    clock.time += LIFE / 2 + 1
    new = await _send(codes, clock, 2)
    await _check(codes, clock, _wrong(new))
    clock.time += POLICY.resend
    resent = await _send(codes, clock, 3)
    await codes.unsend(KEY, resent)
    await codes.unsend(KEY, new)
    assert await _check(codes, clock, _code(new)) == Check(CheckResult.WRONG_CODE, 3)
    assert await _check(codes, clock, _code(old)) == VALID


async def test_a_refused_address(codes: ChallengeStore, clock: Clock) -> None:
    """The code of an address that the relay refused is void, and the mail counts as not sent."""
    sending = await _send(codes, clock)
    await codes.refuse(KEY, sending)
    assert await _check(codes, clock, _code(sending)) == NO_LIVE_CODE
    assert (await _send(codes, clock, 2)).challenge.id == _fresh(2, clock).id
    await codes.refuse(KEY, sending)  # of an earlier code


async def test_a_device_and_strangers(codes: ChallengeStore, clock: Clock) -> None:
    """A device has a code, failures and mails of its own, whatever strangers do; a right code names a new device."""
    for number in (1, 2):
        sending = await _send(codes, clock, number)
        for _ in range(POLICY.attempts):
            await _check(codes, clock, _wrong(sending))
        clock.time += POLICY.resend
    mine = await codes.send(Send(KEY, clock.time, _fresh(3, clock), device=b"device 1"))
    assert mine.challenge == _fresh(3, clock)
    attempt = Attempt(device=b"device 1", new_device=b"device 2", request=b"request1")
    for _ in range(2):
        check = await codes.check(KEY, clock.time, BOOK.guess(_code(mine)), attempt)
        assert (check.result, check.device, check.time) == (CheckResult.VALID, b"device 1", clock.time)
    strangers = await _send(codes, clock, 4)
    assert strangers.challenge.is_long
    check = await codes.check(KEY, clock.time, BOOK.guess(_code(strangers)), Attempt(new_device=b"device 2"))
    assert (check.result, check.device) == (CheckResult.VALID, b"device 2")


async def test_sessions_are_apart(codes: ChallengeStore, clock: Clock) -> None:
    """Each scope has a code and attempts of its own; of four short ones of strangers the oldest ends."""
    scopes = [b"scope %2d" % number for number in range(4)]
    sendings = [
        await codes.send(Send(KEY, clock.time, _fresh(number + 1, clock), scope=scope))
        for number, scope in enumerate(scopes)
    ]
    results = [
        (await codes.check(KEY, clock.time, BOOK.guess(_code(sending)), Attempt(scope))).result
        for sending, scope in zip(sendings, scopes, strict=True)
    ]
    assert results == [CheckResult.NO_LIVE_CODE, *[CheckResult.VALID] * 3]


async def test_the_waits_of_many_sessions(codes: ChallengeStore, clock: Clock) -> None:
    """However many sessions have had a code that was revoked, the record stays small: early waits are forgotten."""
    rules = replace(POLICY, shadows=frozenset({"address"}))

    numbers = itertools.count(1)

    async def send(session: int) -> None:
        asked = Send(KEY, clock.time, _fresh(next(numbers), clock), scope=session.to_bytes(8))
        await codes.send(asked._replace(rules=rules))

    for session in range(1, 301):
        await send(session)
        await codes.void(KEY, session.to_bytes(8), None)
    with pytest.raises(LimitExceeded, match="just now"):
        await send(300)
    with pytest.raises(LimitExceeded, match="just now"):
        await send(240)
    await send(230)


async def test_strangers_take_no_place_of_a_device(codes: ChallengeStore, clock: Clock) -> None:
    """Strangers with as many long codes as an address has places for get no more, and a device gets its own."""
    rules = replace(POLICY, shadows=frozenset({"address", "resend"}))

    async def send(number: int, *, device: bytes = STRANGERS) -> Sending:
        fresh = replace(_fresh(number, clock), length=LONG)
        asked = Send(KEY, clock.time, fresh, scope=number.to_bytes(8), device=device)
        return await codes.send(asked._replace(rules=rules))

    for number in range(1, 65):
        await send(number)
    with pytest.raises(LimitExceeded, match="are live") as refused:
        await send(65)
    assert (refused.value.subject, refused.value.setting) == ("address", "live_codes")
    for number in range(66, 70):
        assert (await send(number, device=b"device 1")).challenge.id == number.to_bytes(16)
    with pytest.raises(LimitExceeded, match="are live"):
        await send(70)


async def test_a_further_device_has_a_place(codes: ChallengeStore, clock: Clock) -> None:
    """With 64 live codes of devices, one of those with most loses its oldest: no owner of many tokens keeps one out.

    A device with fewer loses nothing, and one with as many as any loses its own. Strangers end no code of a device.
    """
    rules = replace(POLICY, shadows=frozenset({"address", "resend"}))
    owner, guest, late = b"an owner", b"a guest.", b"late one"
    numbers = itertools.count(1)

    async def send(session: int, device: bytes) -> Sending:
        asked = Send(KEY, clock.time, _fresh(next(numbers), clock), scope=session.to_bytes(8), device=device)
        return await codes.send(asked._replace(rules=rules))

    async def results(sendings: Sequence[Sending], device: bytes) -> list[CheckResult]:
        found = []
        for session, sending in enumerate(sendings):
            attempt = Attempt(session.to_bytes(8), device)
            found.append((await codes.check(KEY, clock.time, BOOK.guess(_code(sending)), attempt)).result)
        return found

    mine = await send(0, owner)
    many = [b"token %02d" % number for number in range(20)]
    theirs = {device: [await send(session, device) for session in range(3)] for device in many}
    its = [await send(0, guest), await send(1, guest), await send(2, guest)]  # which takes the last place
    latest = await send(0, late)  # in place of the oldest of token 00
    for session in range(10, 14):
        await send(session, STRANGERS)
    second = await send(1, owner)  # of token 01
    assert await results([mine, second], owner) == [CheckResult.VALID] * 2
    assert await results([latest], late) == [CheckResult.VALID]
    assert await results(its, guest) == [CheckResult.VALID] * 3
    for number, device in enumerate(many):
        lost = [CheckResult.NO_LIVE_CODE] if number < 2 else [CheckResult.VALID]
        assert await results(theirs[device], device) == [*lost, *[CheckResult.VALID] * 2]


async def test_devices_with_a_code_each(codes: ChallengeStore, clock: Clock) -> None:
    """With 64 devices of one code each, the oldest of all ends for a further one, and a device's own for its second."""
    rules = replace(POLICY, shadows=frozenset({"address", "resend"}))

    async def send(number: int, session: bytes = NO_SCOPE) -> Sending:
        asked = Send(KEY, clock.time, _fresh(2 * number + (session != NO_SCOPE), clock), scope=session)
        return await codes.send(asked._replace(device=b"token %02d" % number, rules=rules))

    async def result(number: int, sending: Sending, session: bytes = NO_SCOPE) -> CheckResult:
        attempt = Attempt(session, b"token %02d" % number)
        return (await codes.check(KEY, clock.time, BOOK.guess(_code(sending)), attempt)).result

    sendings = [await send(number) for number in range(1, 65)]
    further = await send(65)
    second = await send(30, b"another.")
    assert await result(1, sendings[0]) == CheckResult.NO_LIVE_CODE
    assert await result(30, sendings[29]) == CheckResult.NO_LIVE_CODE
    assert await result(30, second, b"another.") == CheckResult.VALID
    for number, sending in [(2, sendings[1]), (64, sendings[63]), (65, further)]:
        assert await result(number, sending) == CheckResult.VALID


async def test_mails_are_limited(codes: ChallengeStore, clock: Clock) -> None:
    """An address gets ten mails in an hour over all scopes; a mail that was not sent counts no more."""
    for number in range(10):
        scope = b"scope %2d" % number
        last = await codes.send(Send(KEY, clock.time, _fresh(number + 1, clock), scope=scope))
    for _ in range(2):
        with pytest.raises(LimitExceeded, match="too many codes were mailed for this address in an hour") as caught:
            await codes.send(Send(KEY, clock.time, _fresh(20, clock), scope=b"another."))
        assert (caught.value.retry_after, caught.value.setting) == (3600.0, "OTP_SENDS_PER_HOUR")
    await codes.unsend(KEY, last)
    await codes.send(Send(KEY, clock.time, _fresh(21, clock), scope=b"another."))


async def test_addresses_are_apart(codes: ChallengeStore, clock: Clock) -> None:
    """A code is that of one record alone, and is a wrong one for another."""
    ada = await _send(codes, clock)
    bob = await _send(codes, clock, 2, key=b"the record of bo")
    assert await _check(codes, clock, _code(ada), key=b"the record of bo") == Check(CheckResult.WRONG_CODE, 4)
    assert await _check(codes, clock, _code(ada)) == VALID
    assert await _check(codes, clock, _code(bob), key=b"the record of bo") == VALID


async def test_two_hundred_right_codes(replicas: Sequence[ChallengeStore], clock: Clock) -> None:
    """Of 200 checks of one code at once, over two replicas where a store has them, exactly one is valid."""
    sending = await _send(replicas[0], clock)
    checks = await asyncio.gather(*[_check(replicas[n % 2], clock, _code(sending)) for n in range(200)])
    assert Counter(check.result for check in checks) == {CheckResult.VALID: 1, CheckResult.NO_LIVE_CODE: 199}


async def test_two_hundred_wrong_codes(replicas: Sequence[ChallengeStore], clock: Clock) -> None:
    """Of 200 wrong codes at once exactly five are tried."""
    sending = await _send(replicas[0], clock)
    checks = await asyncio.gather(*[_check(replicas[n % 2], clock, _wrong(sending)) for n in range(200)])
    assert Counter(check.result for check in checks) == {CheckResult.WRONG_CODE: 5, CheckResult.TOO_MANY_ATTEMPTS: 195}
    assert {check.attempts_left for check in checks if check.result is CheckResult.WRONG_CODE} == {0, 1, 2, 3, 4}
