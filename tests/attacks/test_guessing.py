"""Guesses at a code: more of them at once, cancelled, or after new codes are no more than the limits let through."""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from attacks.targets import Answer, somebody, wrong_codes

if TYPE_CHECKING:
    from attacks.targets import Target

pytestmark = pytest.mark.asyncio(loop_scope="session")
AT_ONCE = 200


async def test_the_last_attempt_is_one(target: Target) -> None:
    """The right code is valid after one wrong guess less than a code stands, and used up then."""
    email = somebody()
    code = await _code(target, email)
    assert await target.guess(email, code, target.limits.attempts - 1) == {Answer.WRONG: target.limits.attempts - 1}
    assert await target.check(email, code) is Answer.RIGHT
    assert await target.check(email, code) is Answer.REFUSED


async def test_no_attempt_beyond_the_last(target: Target) -> None:
    """Exactly as many wrong guesses as a code stands are compared, and then not even the right code is."""
    email = somebody()
    code = await _code(target, email)
    tried = await target.guess(email, code, target.limits.attempts + 3)
    assert tried == {Answer.WRONG: target.limits.attempts, Answer.REFUSED: 3}
    assert await target.check(email, code) is Answer.REFUSED


async def test_right_codes_at_once(target: Target) -> None:
    """Of 200 parallel checks with the right code exactly one is valid."""
    email = somebody()
    code = await _code(target, email)
    answers = Counter(await asyncio.gather(*(target.check(email, code) for _ in range(AT_ONCE))))
    assert answers == {Answer.RIGHT: 1, Answer.REFUSED: AT_ONCE - 1}


async def test_wrong_codes_at_once(target: Target) -> None:
    """Of 200 parallel guesses as many are compared as of guesses one after the other."""
    email = somebody()
    code = await _code(target, email)
    answers = Counter(await asyncio.gather(*(target.check(email, guess) for guess in wrong_codes(code, AT_ONCE))))
    assert answers == {Answer.WRONG: target.limits.attempts, Answer.REFUSED: AT_ONCE - target.limits.attempts}
    assert await target.check(email, code) is Answer.REFUSED


async def test_cancelled_checks(target: Target) -> None:
    """Guesses whose calls are cancelled under way give no further ones, and a right one is valid once at most."""
    email = somebody()
    code = await _code(target, email)
    answers: Counter[Answer] = Counter()
    chance = random.Random(17)
    for guess in wrong_codes(code, 4 * target.limits.attempts):
        check = asyncio.create_task(target.check(email, guess))
        await asyncio.sleep(chance.choice((0, 0, 0.0005, 0.002)))
        check.cancel()
        with suppress(asyncio.CancelledError):
            answers[await check] += 1
    answers += await target.guess(email, code, 2 * target.limits.attempts)
    assert answers[Answer.WRONG] <= target.limits.attempts
    assert answers[Answer.RIGHT] == 0
    assert await target.check(email, code) is Answer.REFUSED


async def test_a_right_check_that_is_cancelled(target: Target) -> None:
    """A right code whose check is cancelled under way is valid in one more check at most."""
    email = somebody()
    code = await _code(target, email)
    check = asyncio.create_task(target.check(email, code))
    await asyncio.sleep(0.001)
    check.cancel()
    with suppress(asyncio.CancelledError):
        assert await check is Answer.RIGHT
    answers = Counter(await asyncio.gather(*(target.check(email, code) for _ in range(20))))
    assert answers[Answer.RIGHT] <= 1
    assert answers[Answer.WRONG] == 0


async def test_new_codes_give_no_more_guesses(target: Target) -> None:
    """New codes give a guesser no more wrong guesses in an hour than an address allows."""
    email = somebody()
    compared = 0
    for _ in range(target.limits.failures):
        code = await target.code_for(email)
        if code is None:
            break
        compared += (await target.guess(email, code, target.limits.attempts + 1))[Answer.WRONG]
    assert 0 < compared <= target.limits.failures
    assert await target.check(email, "000000") is Answer.REFUSED


@pytest.mark.v1
@pytest.mark.parametrize("field", ["purpose", "session"])
async def test_codes_of_each_kind_share_the_guesses(target: Target, field: str) -> None:
    """Made-up purposes and sessions, each with a code of its own, give no more guesses at short codes than one does."""
    email = somebody()
    compared, codes = 0, {}
    for number in range(target.limits.failures):
        of: dict[str, Any] = {field: f"made-up-{number}"}
        code = await target.code_for(email, **of)
        if code is None:
            break
        codes[number] = code
        compared += (await target.guess(email, code, target.limits.attempts, **of))[Answer.WRONG]
    assert 0 < compared <= target.limits.failures
    for number, code in codes.items():
        of = {field: f"made-up-{number}"}
        assert await target.check(email, code, **of) is not Answer.RIGHT


@pytest.mark.v1
async def test_other_challenges_give_no_guesses(target: Target) -> None:
    """A guess that is bound to another challenge is compared with nothing, and costs the owner nothing."""
    email = somebody()
    code = await _code(target, email)
    for _ in range(2 * target.limits.attempts):
        assert await target.check(email, code, challenge_id=secrets.token_hex(16)) is Answer.REFUSED
    assert (await target.guess(email, code, target.limits.attempts - 1))[Answer.WRONG] == target.limits.attempts - 1
    assert await target.check(email, code) is Answer.RIGHT


@pytest.mark.v1
async def test_repeated_checks_give_no_more_guesses(target: Target) -> None:
    """Guesses under one request id, or each under its own, are as many as without, also if some are repeated."""
    for ids in (itertools.repeat("same"), map(str, itertools.count())):
        email = somebody()
        code = await _code(target, email)
        learned = set()
        for guess, request_id in zip(wrong_codes(code, 3 * target.limits.attempts), ids, strict=False):
            answers = {await target.check(email, guess, request_id=request_id) for _ in range(2)}
            learned |= {guess} if Answer.WRONG in answers else set()
        assert len(learned) <= target.limits.attempts
        assert await target.check(email, code, request_id=secrets.token_hex(8)) is Answer.REFUSED


@pytest.mark.v1
async def test_tokens_of_others_give_no_more_guesses(target: Target) -> None:
    """A made-up device token, or that of another address, leaves its bearer among the strangers."""
    other, email = somebody("eve"), somebody()
    token = await target.device_token(other, await _code(target, other))
    code = await _code(target, email)
    compared: Counter[Answer] = Counter()
    for shown in (token, token[:-1], secrets.token_urlsafe(40), ""):
        compared += await target.guess(email, code, target.limits.attempts, device_token=shown)
    assert compared[Answer.WRONG] == target.limits.attempts
    assert await target.check(email, code, device_token=token) is Answer.REFUSED


async def _code(target: Target, email: str) -> str:
    code = await target.code_for(email)
    assert code is not None, "the target mailed no code"
    return code
