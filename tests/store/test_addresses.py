"""All that a store keeps of an address: its budgets are shown and lifted, and the address is forgotten."""

import pytest

from otpmail.code_record import Budget
from otpmail.errors import LimitExceeded
from otpmail.model import DAY, HOUR, Challenge, CheckResult, Sending
from otpmail.store.challenges import Attempt, ChallengeStore, Send
from rules import BOOK, POLICY
from store.clocks import Clock

KEY, OTHER = b"the record of ad", b"another record  "
DEVICE = b"a device"


async def _send(codes: ChallengeStore, clock: Clock, number: int, *, key: bytes = KEY) -> Sending:
    return await codes.send(Send(key, clock.time, Challenge(number.to_bytes(16), "k1", clock.time + 600, length=6)))


async def _fail(codes: ChallengeStore, clock: Clock, sending: Sending, *, key: bytes = KEY) -> CheckResult:
    wrong = f"{(int(BOOK.code(sending.challenge)) + 1) % 10**6:06d}"
    return (await codes.check(key, clock.time, BOOK.guess(wrong))).result


async def test_nothing_is_spent_at_first(codes: ChallengeStore) -> None:
    """An address that is not known has spent nothing, and is released and forgotten without an error."""
    assert await codes.budgets(KEY) == ()
    await codes.release(KEY)
    await codes.forget(KEY)
    assert await codes.budgets(KEY) == ()


async def test_what_is_spent_is_shown(codes: ChallengeStore, clock: Clock) -> None:
    """Failures and mails are shown by their settings, with when the oldest of them counts no more."""
    began = clock.time
    sending = await _send(codes, clock, 1)
    clock.time += 100
    for _ in range(2):
        await _fail(codes, clock, sending)
    assert await codes.budgets(KEY) == (
        Budget("OTP_FAILURES_PER_HOUR", 2, 10, began + 100 + HOUR),
        Budget("OTP_FAILURES_PER_DAY", 2, 30, began + 100 + DAY),
        Budget("OTP_SENDS_PER_HOUR", 1, 10, began + HOUR),
        Budget("OTP_SENDS_PER_DAY", 1, 30, began + DAY),
    )
    clock.time = began + HOUR
    assert [budget.setting for budget in await codes.budgets(KEY)] == [
        "OTP_FAILURES_PER_HOUR",
        "OTP_FAILURES_PER_DAY",
        "OTP_SENDS_PER_DAY",
    ]
    assert await codes.budgets(OTHER) == ()


async def test_a_lock_is_lifted(codes: ChallengeStore, clock: Clock) -> None:
    """A release lets an address that is locked go on, and leaves its live code with the attempts that are left."""
    for number in range(POLICY.sends.per_hour):
        sending = await _send(codes, clock, number)
        clock.time += POLICY.resend
    with pytest.raises(LimitExceeded, match="in an hour"):
        await _send(codes, clock, 99)
    await _fail(codes, clock, sending)
    await codes.release(KEY)
    assert await codes.budgets(KEY) == ()
    wrong = f"{(int(BOOK.code(sending.challenge)) + 1) % 10**6:06d}"
    assert (await codes.check(KEY, clock.time, BOOK.guess(wrong))).attempts_left == POLICY.attempts - 2
    assert (await codes.check(KEY, clock.time, BOOK.guess(BOOK.code(sending.challenge)))).result is CheckResult.VALID
    await _send(codes, clock, 100)


async def test_a_forgotten_address_has_no_code(codes: ChallengeStore, clock: Clock) -> None:
    """A forgotten address has neither a live code nor a wait, and others keep theirs."""
    sending, other = await _send(codes, clock, 1), await _send(codes, clock, 2, key=OTHER)
    await _fail(codes, clock, sending)
    await codes.forget(KEY)
    assert await codes.budgets(KEY) == ()
    answer = await codes.check(KEY, clock.time, BOOK.guess(BOOK.code(sending.challenge)))
    assert answer.result is CheckResult.NO_LIVE_CODE
    await _send(codes, clock, 3)
    answer = await codes.check(OTHER, clock.time, BOOK.guess(BOOK.code(other.challenge)))
    assert answer.result is CheckResult.VALID


async def test_budgets_of_devices_are_released_too(codes: ChallengeStore, clock: Clock) -> None:
    """A release lifts the limits of each device, which are not shown."""
    sending = await codes.send(
        Send(KEY, clock.time, Challenge(bytes(16), "k1", clock.time + 600, length=6), device=DEVICE)
    )
    wrong = f"{(int(BOOK.code(sending.challenge)) + 1) % 10**6:06d}"
    for _ in range(POLICY.attempts):
        await codes.check(KEY, clock.time, BOOK.guess(wrong), Attempt(device=DEVICE))
    assert await codes.budgets(KEY) == ()
    for number in range(1, 10):
        clock.time += POLICY.resend
        fresh = Challenge(number.to_bytes(16), "k1", clock.time + 600, length=6)
        await codes.send(Send(KEY, clock.time, fresh, device=DEVICE))
    clock.time += POLICY.resend
    last = Send(KEY, clock.time, Challenge((99).to_bytes(16), "k1", clock.time + 600, length=6), device=DEVICE)
    with pytest.raises(LimitExceeded, match="this device"):
        await codes.send(last)
    await codes.release(KEY)
    await codes.send(last)
