"""Calls that wait for their turn: none is forgotten, whoever else comes or goes."""

import asyncio

from otpmail.rpc.batching import Batching, BatchWindow


class Slow(BatchWindow):
    """A beat of a busy process with three calls under way: only a test that means to sees the end of it."""

    seconds = 600.0

    @property
    def next_at(self) -> float:
        """By hand."""
        return asyncio.get_running_loop().time() + self.seconds

    def is_due(self, now: float, *, waiting: int, under_way: int) -> bool:  # noqa: ARG002
        """When there are three."""
        return waiting >= 3


async def test_with_nothing_to_wait_for_a_call_begins_at_once() -> None:
    """So it is for a service that has time."""
    assert Batching().take(1) is None


async def test_the_last_lets_all_begin() -> None:
    """It does not wait itself, and the next ones wait anew."""
    turns = Batching(Slow())
    first, second = turns.take(1), turns.take(2)
    assert first is not None
    assert second is not None
    assert not first.done()
    assert turns.take(3) is None
    await asyncio.gather(first, second)
    following = turns.take(1)
    assert following is not None
    assert not following.done()


async def test_the_next_beat_lets_all_begin() -> None:
    """Where no further call comes; then the next one is waited for anew."""
    beat = Slow()
    turns = Batching(beat)
    for _ in range(2):
        beat.seconds = 0.001
        waiting = turns.take(1), turns.take(2)
        beat.seconds = 600.0
        async with asyncio.timeout(5):
            for turn in waiting:
                assert turn is not None
                await turn


async def test_a_cancelled_call_holds_up_nobody() -> None:
    """It has gone when the others begin, and they do."""
    turns = Batching(Slow())
    first, second = turns.take(1), turns.take(2)
    assert first is not None
    assert second is not None
    first.cancel()
    assert turns.take(2) is None
    await second


async def test_its_repr_says_how_many_wait() -> None:
    """And how long a beat is."""
    turns = Batching(Slow())
    turns.take(1)
    assert repr(turns) == "<Batching 1 waiting, <BatchWindow 0.0 ms, 1 expected>>"
