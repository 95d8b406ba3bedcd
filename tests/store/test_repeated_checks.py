"""A check that is repeated with its request id, in every store: the first answer for a minute, whatever it was."""

from collections.abc import Sequence

from otpmail.code_record import STRANGERS
from otpmail.model import LONG, Challenge, Check, CheckResult
from otpmail.store.challenges import NO_SCOPE, Attempt, ChallengeStore, Send
from rules import BOOK, POLICY
from store.clocks import Clock

KEY = b"the record of ad"
LIFE = 600.0
FIRST, SECOND = Attempt(request=b"request1"), Attempt(request=b"request2")
NO_LIVE_CODE = Check(CheckResult.NO_LIVE_CODE)


async def _send(codes: ChallengeStore, clock: Clock, number: int, *, length: int = 6) -> str:
    fresh = Challenge(number.to_bytes(16), "k1", clock.time + LIFE, length=length)
    return BOOK.code((await codes.send(Send(KEY, clock.time, fresh, spaced=False))).challenge)


async def _check(codes: ChallengeStore, clock: Clock, typed: str, attempt: Attempt = FIRST) -> Check:
    return await codes.check(KEY, clock.time, BOOK.guess(typed), attempt)


async def test_no_live_code(replicas: Sequence[ChallengeStore], clock: Clock) -> None:
    """NO_LIVE_CODE is answered again although a code was sent since, through any replica, and costs that no attempt."""
    codes, other = replicas
    await _send(codes, clock, 1)
    await codes.void(KEY, NO_SCOPE, None)
    assert await _check(codes, clock, "000000") == NO_LIVE_CODE
    code = await _send(other, clock, 2)
    for replica in (codes, other, codes):
        assert await _check(replica, clock, "000000") == NO_LIVE_CODE
    clock.time += 59.9
    assert await _check(other, clock, "000000") == NO_LIVE_CODE
    clock.time += 0.1
    wrong = "000000" if code != "000000" else "111111"
    assert (await _check(codes, clock, wrong)).attempts_left == POLICY.attempts - 1
    assert (await _check(codes, clock, code, SECOND)).result is CheckResult.VALID


async def test_too_many_attempts(codes: ChallengeStore, clock: Clock) -> None:
    """TOO_MANY_ATTEMPTS is answered again, with its time, although a new code was sent since."""
    code = await _send(codes, clock, 1)
    wrong = "000000" if code != "000000" else "111111"
    for _ in range(POLICY.attempts):
        await _check(codes, clock, wrong, Attempt())
    first = await _check(codes, clock, wrong)
    assert first.result is CheckResult.TOO_MANY_ATTEMPTS
    clock.time += 30.0
    code = await _send(codes, clock, 2)
    for _ in range(POLICY.attempts + 1):
        assert await _check(codes, clock, wrong) == first
    assert (await _check(codes, clock, code, SECOND)).result is CheckResult.VALID


async def test_a_text_that_could_be_no_code(codes: ChallengeStore, clock: Clock) -> None:
    """A wrong code that cost nothing, as at a long code, costs nothing at the short one that was sent since."""
    await _send(codes, clock, 1, length=LONG)
    first = await _check(codes, clock, "000000")
    assert first == Check(CheckResult.WRONG_CODE, POLICY.attempts)
    await codes.void(KEY, NO_SCOPE, None)
    code = await _send(codes, clock, 2)
    wrong = "000000" if code != "000000" else "111111"
    for _ in range(POLICY.attempts + 1):
        assert await _check(codes, clock, "000000") == first
    assert (await _check(codes, clock, wrong, SECOND)).attempts_left == POLICY.attempts - 1


async def test_an_address_of_which_nothing_is_kept(codes: ChallengeStore, clock: Clock) -> None:
    """No check begins a record: with a code since, the same check is one more attempt."""
    for number in range(100):
        assert await _check(codes, clock, "000000", Attempt(request=b"check%03d" % number)) == NO_LIVE_CODE
    assert codes.octets == 0
    code = await _send(codes, clock, 1)
    assert (await _check(codes, clock, code, Attempt(request=b"check000"))).result is CheckResult.VALID


async def test_answers_that_cost_nothing_displace_no_others(codes: ChallengeStore, clock: Clock) -> None:
    """However many checks others make, the one that has used a code is VALID again, and a wrong one costs once."""
    code = await _send(codes, clock, 1)
    wrong = "000000" if code != "000000" else "111111"
    counted = await _check(codes, clock, wrong)
    valid = await _check(codes, clock, code, SECOND)
    for number in range(20):
        request = b"check%03d" % number
        assert await _check(codes, clock, wrong, Attempt(request=request)) == NO_LIVE_CODE
    await _send(codes, clock, 2)
    for number in range(POLICY.attempts):
        await _check(codes, clock, "000001", Attempt(request=b"wrong%03d" % number))
    assert await _check(codes, clock, code, SECOND) == valid
    assert valid.device == STRANGERS
    assert (counted.result, counted.attempts_left) == (CheckResult.WRONG_CODE, POLICY.attempts - 1)
