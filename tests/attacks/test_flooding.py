"""Floods of mails with codes: the caps of an address hold under parallel calls, and no refused call mails anything."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

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


_TAGGED = {"tag": "{}+{}@{}", "tag in quotes": '"{}+ {}"@{}'}


@pytest.mark.v1
@pytest.mark.parametrize("way", ["session", "purpose", *_TAGGED])
async def test_the_cap_of_an_address(target: Target, way: str) -> None:
    """Parallel calls for one mailbox mail no more codes than its cap, whatever sessions, purposes or tags they name."""
    name, _, domain = somebody().partition("@")
    requests: list[tuple[str, dict[str, Any]]] = [
        (form.format(name, number, domain), {})
        if (form := _TAGGED.get(way))
        else (f"{name}@{domain}", {way: f"made-up-{number}"})
        for number in range(AT_ONCE)
    ]
    before = len(target.mails)
    answers = await asyncio.gather(*(target.send_code(email, **fields) for email, fields in requests))
    assert sum(answer is not None for answer in answers) == target.limits.sends
    assert len(target.mails) == before + target.limits.sends


@pytest.mark.v1
@pytest.mark.parametrize(
    "block",
    [
        *("198.51.{0}.{1}", "::ffff:198.51.{0}.{1}", "64:ff9b::198.51.{0}.{1}"),
        *("2001:db8:{0:x}:{1:x}::{host:x}", "2002:c633:{0:02x}{1:02x}:{host:x}::1"),
    ],
)
async def test_the_cap_of_a_block(target: Target, block: str) -> None:
    """Parallel calls for many addresses mail no more codes than the cap of the end user's block of addresses."""
    first, second = secrets.randbelow(256), secrets.randbelow(256)
    hosts = range(1, target.limits.block_sends + 11)
    ips = [block.format(first, second, host=host) for host in hosts]
    answers = await asyncio.gather(*(target.send_code(somebody(), client_ip=ip) for ip in ips))
    assert sum(answer is not None for answer in answers) == target.limits.block_sends
