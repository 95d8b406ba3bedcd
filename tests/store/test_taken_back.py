"""Mails of codes that were not sent count nowhere, in every store, whatever has become of their codes since."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from otpmail.code_record import STRANGERS
from otpmail.errors import LimitExceeded
from otpmail.model import Challenge, CheckResult, Sending
from otpmail.store.challenges import NO_SCOPE, Attempt, ChallengeStore, Quota, Send
from otpmail.store.redis.codes import RedisChallengeStore
from rules import BOOK, POLICY
from store.clocks import Clock

LIFE = 600.0
ONE = Quota("block", b"one mail an hour", 1)
TWO = Quota("caller", b"two mails an hou", 2)
_KEY = b"ada+tag at shop "
_MAILBOX = b"ada at shop     "
_OTHERS = b"somebody else's "


@dataclass
class _World:
    """One address with a tag on a store, and what its mails count for."""

    codes: ChallengeStore
    clock: Clock
    number: int = 0

    async def send(self, key: bytes = _KEY, *quotas: Quota, mailbox: bytes = b"", spaced: bool = True) -> Sending:
        """Mail a code; each call brings another fresh challenge."""
        return await self.codes.send(self.asked(key, *quotas, mailbox=mailbox, spaced=spaced))

    def asked(self, key: bytes, *quotas: Quota, mailbox: bytes = b"", spaced: bool = True) -> Send:
        """Return the question that `send` asks."""
        self.number += 1
        fresh = Challenge(self.number.to_bytes(16), "k1", self.clock.time + LIFE, length=6)
        return Send(key, self.clock.time, fresh, spaced=spaced, quotas=quotas, mailbox=mailbox)

    async def first(self) -> Sending:
        """Mail the code that everything else is about."""
        return await self.send(_KEY, ONE, TWO, mailbox=_MAILBOX)

    async def spent(self, key: bytes) -> int:
        """Return how many mails count for an address in a day."""
        budgets = {budget.setting: budget.spent for budget in await self.codes.budgets(key)}
        return budgets.get("OTP_SENDS_PER_DAY", 0)

    async def expect_nothing_counted(self, *, others: int) -> None:
        """Check that but for so many `others` of the address no mail counts, for no limit."""
        if isinstance(self.codes, RedisChallengeStore):  # a cancelled call waits half a second for that, and no longer
            await self.codes.settled(_KEY)
        assert (await self.spent(_KEY), await self.spent(_MAILBOX)) == (others, 0)
        await self.send(_OTHERS, ONE, TWO)
        with pytest.raises(LimitExceeded, match="client_ip"):
            await self.send(b"somebody else 2 ", ONE)
        await self.send(b"somebody else 3 ", TWO)
        with pytest.raises(LimitExceeded, match="this caller"):
            await self.send(b"somebody else 4 ", TWO)


@pytest.fixture
def world(codes: ChallengeStore, clock: Clock) -> _World:
    """Each store in turn."""
    return _World(codes, clock)


async def _replaced(world: _World, _: Sending) -> int:
    world.clock.time += LIFE / 2 + 1
    await world.send()
    return 1


async def _replaced_twice(world: _World, first: Sending) -> int:
    return await _replaced(world, first) + await _replaced(world, first)


async def _replaced_and_mailed_nine_times(world: _World, first: Sending) -> int:
    await _replaced(world, first)
    for _ in range(9):
        world.clock.time += 1
        await world.send(spaced=False)
    return 10


async def _revoked(world: _World, _: Sending) -> int:
    await world.codes.void(_KEY, NO_SCOPE, None)
    return 0


async def _used(world: _World, first: Sending) -> int:
    world.clock.time += POLICY.resend
    await world.send()
    code = BOOK.guess(BOOK.code(first.challenge))
    assert (await world.codes.check(_KEY, world.clock.time, code)).result is CheckResult.VALID
    return 1


async def _expired(world: _World, _: Sending) -> int:
    world.clock.time += LIFE
    return 0


async def _expired_and_asked_for_again(world: _World, _: Sending) -> int:
    world.clock.time += LIFE
    await world.send()
    return 1


async def _spent_and_asked_for_again(world: _World, first: Sending) -> int:
    wrong = f"{(int(BOOK.code(first.challenge)) + 1) % 10**6:06d}"
    for _ in range(POLICY.attempts):
        await world.codes.check(_KEY, world.clock.time, BOOK.guess(wrong))
    world.clock.time += POLICY.resend
    await world.send()
    return 1


async def _given_up_for_other_sessions(world: _World, _: Sending) -> int:
    for number in range(3):
        world.clock.time += 1
        await world.codes.send(world.asked(_KEY)._replace(scope=b"session%d" % number))
    return 3


async def _released(world: _World, _: Sending) -> int:
    await world.codes.release(_KEY)
    return 0


_EVENTS = [
    _replaced,
    _replaced_twice,
    _replaced_and_mailed_nine_times,
    _revoked,
    _used,
    _expired,
    _expired_and_asked_for_again,
    _spent_and_asked_for_again,
    _given_up_for_other_sessions,
    _released,
]


@pytest.mark.parametrize("happens", _EVENTS, ids=lambda happens: happens.__name__.strip("_"))
async def test_a_mail_that_never_left_counts_nowhere(
    world: _World, happens: Callable[[_World, Sending], Awaitable[int]]
) -> None:
    """A mail that never left is taken out of lane, mailbox and each limit, once, whatever happened to its code."""
    first = await world.first()
    others = await happens(world, first)
    for _ in range(3):
        await world.codes.unsend(_KEY, first)
    await world.expect_nothing_counted(others=others)


async def test_a_revoked_code_whose_mail_never_left_is_not_waited_for(world: _World) -> None:
    """The next code may be asked for at once, also where the relay has refused the mail for good."""
    sendings = []
    for undo in (world.codes.unsend, world.codes.refuse):
        sendings.append(await world.send())
        await world.codes.void(_KEY, NO_SCOPE, None)
        await undo(_KEY, sendings[-1])
    sendings.append(await world.send())
    assert len({sending.challenge.id for sending in sendings}) == 3
    with pytest.raises(LimitExceeded):  # the last mail is under way
        await world.send()


async def _is_live(world: _World, sending: Sending) -> bool:
    code = BOOK.guess(BOOK.code(sending.challenge))
    return (await world.codes.check(_KEY, world.clock.time, code)).result is CheckResult.VALID


async def test_a_replaced_code_whose_mail_never_left(world: _World) -> None:
    """The newer code stays live, and the next mail waits for that one's; an earlier mail may have brought the older."""
    first = await world.first()
    world.clock.time += POLICY.resend
    second = await world.send()
    world.clock.time += LIFE / 2
    newer = await world.send()
    assert first.challenge == second.challenge != newer.challenge
    await world.codes.unsend(_KEY, second)
    with pytest.raises(LimitExceeded, match="just now"):
        await world.send()
    await world.codes.unsend(_KEY, newer)
    assert await _is_live(world, first)


async def test_a_replaced_code_whose_mail_was_refused(world: _World) -> None:
    """A replaced code is never live again, even if no mail brings the newer one; the refused mail goes on counting."""
    first = await world.send()
    world.clock.time += LIFE / 2 + 1
    newer = await world.send()
    await world.codes.refuse(_KEY, first)
    assert await world.spent(_KEY) == 2
    await world.codes.unsend(_KEY, newer)
    assert await world.spent(_KEY) == 1
    assert not await _is_live(world, first)
    assert await _is_live(world, newer)


@pytest.mark.parametrize("device", [STRANGERS, b"a device"], ids=["strangers", "a device"])
async def test_a_call_that_mails_nothing_ends_no_code(world: _World, device: bytes) -> None:
    """Calls without a mail, in sessions without number, leave the code that a person has; calls with one end it."""

    async def send(session: int) -> Sending:
        scope = session.to_bytes(8)
        return await world.codes.send(world.asked(_KEY)._replace(scope=scope, device=device, compat=True))

    async def result() -> CheckResult:
        guess = BOOK.guess(BOOK.code(first.challenge))
        return (await world.codes.check(_KEY, world.clock.time, guess, Attempt(device=device))).result

    first = await send(0)
    kept = [await send(session) for session in range(1, 4)]
    for session in range(4, 60):
        await world.codes.unsend(_KEY, await send(session))
    assert await result() is CheckResult.NO_LIVE_CODE
    await world.codes.unsend(_KEY, kept[1])
    assert await result() is CheckResult.VALID


async def test_a_mail_from_before_all_counts(world: _World) -> None:
    """A mail that has left the counts of an hour already takes no other mail with it."""
    first = await world.codes.send(replace_life(world.asked(_KEY, TWO), 2 * 86_400.0))
    world.clock.time += 7200
    await world.send(_OTHERS, TWO)
    await world.codes.unsend(_KEY, first)
    await world.send(b"somebody else 3 ", TWO)
    with pytest.raises(LimitExceeded, match="this caller"):
        await world.send(b"somebody else 4 ", TWO)


def replace_life(send: Send, seconds: float) -> Send:
    """Return a question whose fresh challenge lives that long."""
    return send._replace(fresh=replace(send.fresh, expires=send.now + seconds))


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancelled_call_leaves_nothing_counted(world: _World, turns: int) -> None:
    """A call that is cancelled, so many turns of the loop after it asked, leaves nothing counted anywhere."""
    asking = asyncio.create_task(world.first())
    for _ in range(turns):
        await asyncio.sleep(0)
    asking.cancel()
    [end] = await asyncio.gather(asking, return_exceptions=True)
    if isinstance(end, Sending):  # the store had answered before
        await world.codes.unsend(_KEY, end)
    await world.expect_nothing_counted(others=0)
    await world.send(_KEY)


async def test_a_cancelled_call_before_another(world: _World) -> None:
    """A call that is cancelled takes its own mail back, and not that of the next call for the same code."""
    cancelled = asyncio.create_task(world.first())
    await asyncio.sleep(0)
    world.clock.time += 1
    other = asyncio.create_task(world.send(spaced=False))
    await asyncio.sleep(0)
    cancelled.cancel()
    ends = await asyncio.gather(cancelled, other, return_exceptions=True)
    if isinstance(ends[0], Sending):
        await world.codes.unsend(_KEY, ends[0])
    assert isinstance(ends[1], Sending)
    await world.expect_nothing_counted(others=1)
    with pytest.raises(LimitExceeded, match="just now"):
        await world.send()
