"""Floods of mails with codes: the caps of an address hold under parallel calls, and no refused call mails anything."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from attacks.targets import somebody

if TYPE_CHECKING:
    from attacks.targets import Target

pytestmark = pytest.mark.asyncio(loop_scope="session")
AT_ONCE = 50


@pytest.mark.v1
async def test_parallel_calls_for_an_address(target: Target) -> None:
    """Of many parallel calls for one address one mails a code, and the others mail nothing."""
    email = somebody()
    before = len(target.mails)
    answers = await asyncio.gather(*(target.send_code(email) for _ in range(AT_ONCE)))
    assert sum(answer is not None for answer in answers) == 1
    assert len(target.mails) == before + 1


@pytest.mark.v1
async def test_a_refused_call_uses_up_nothing(target: Target) -> None:
    """A code is valid and has all its attempts after a flood of calls for another mail was refused."""
    email = somebody()
    code = await target.code_for(email)
    assert code is not None
    assert set(await asyncio.gather(*(target.send_code(email) for _ in range(AT_ONCE)))) == {None}
    await target.guess(email, code, target.limits.attempts - 1)
    assert (await target.check(email, code)).value == "right"


async def test_parallel_calls_mail_one_code(target: Target) -> None:
    """All mails that parallel calls for one address bring have one code, so that a flood gives no more to guess."""
    email = somebody()
    before = len(target.mails)
    answers = await asyncio.gather(*(target.send_code(email) for _ in range(10)))
    mailed = target.mails[before:]
    assert len(mailed) == sum(answer is not None for answer in answers) >= 1
    assert len({code for mail in mailed for code in target.system.codes_in(mail)}) == 1
