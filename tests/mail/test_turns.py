"""The turns of streams and of long work: which of them share a round of the loop."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from otpmail.mail.turns import Turns


class Clock:
    """A clock that stands still until it is put forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


class Rounds:
    """Counts the rounds of the loop in which tasks go on."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.turns = Turns(self.clock, round_seconds=1.0)
        self.order: list[str] = []
        self.rounds: list[int] = []
        self._round = 0
        asyncio.get_running_loop().call_soon(self._count)

    def _count(self) -> None:
        self._round += 1
        if self._round < 200:
            asyncio.get_running_loop().call_soon(self._count)

    async def go(self, name: str, wait: Callable[[], Awaitable[None]], seconds: float) -> None:
        """Wait for a turn, and block the loop in it."""
        await wait()
        self.order.append(name)
        self.rounds.append(self._round)
        self.clock.now += seconds


async def test_one_who_is_alone_begins_at_once() -> None:
    """Where nobody else has the loop, a turn begins in the same step of its task."""
    turns = Turns()
    await asyncio.sleep(0)
    with pytest.raises(StopIteration):
        turns.begin().__await__().__next__()


async def test_short_turns_share_rounds() -> None:
    """Hundreds of turns that take no time go on in a few rounds, in the order in which they began to wait."""
    rounds = Rounds()
    names = [str(number) for number in range(200)]
    await asyncio.gather(*(rounds.go(name, rounds.turns.wait, 0.0) for name in names))
    assert rounds.order == names
    assert len(set(rounds.rounds)) <= 15


async def test_long_turns_have_a_round_each() -> None:
    """After a turn that took the round's time no other begins in that round, however many were woken."""
    rounds = Rounds()
    names = [str(number) for number in range(20)]
    await asyncio.gather(*(rounds.go(name, rounds.turns.wait, 2.0) for name in names))
    assert rounds.order == names
    assert len(set(rounds.rounds)) == 20


async def test_those_woken_too_late_keep_their_order() -> None:
    """Turns that a long one kept from their round go on next, before others that wait, in their order."""
    rounds = Rounds()
    names = [str(number) for number in range(40)]
    await asyncio.gather(*(rounds.go(name, rounds.turns.wait, 2.0 * (int(name) % 9 == 8)) for name in names))
    assert rounds.order == names


async def test_nobody_begins_ahead_of_those_who_wait() -> None:
    """One who has just waited for something else begins behind those who wait for a turn, also behind woken ones."""
    rounds = Rounds()
    waiting = [asyncio.create_task(rounds.go(str(number), rounds.turns.wait, 2.0)) for number in range(3)]
    beginning: list[asyncio.Task[None]] = []
    for number in range(3, 9):
        await asyncio.sleep(0)
        beginning.append(asyncio.create_task(rounds.go(str(number), rounds.turns.begin, 0.0)))
    await asyncio.gather(*waiting, *beginning)
    assert rounds.order == [str(number) for number in range(9)]


async def test_one_that_is_cancelled_leaves_its_turn_to_others() -> None:
    """Others go on though a task was cancelled while it waited, or after it was woken."""
    rounds = Rounds()
    tasks = [asyncio.create_task(rounds.go(str(number), rounds.turns.wait, 0.0)) for number in range(4)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    await asyncio.sleep(0)
    tasks[0].cancel()  # it is woken
    await asyncio.gather(*tasks, return_exceptions=True)
    assert rounds.order == ["1", "2"]
    await rounds.go("last", rounds.turns.begin, 0.0)
    assert repr(rounds.turns).startswith("<Turns 0 waiting")
