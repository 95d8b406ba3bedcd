"""Work in steps: how it shares the event loop with others."""

import asyncio

import pytest

from otpmail.cooperate import Cooperator, Steps, finish


class Work:
    """Steps that each move the clock on by a second; `order` is what has run, in its order."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def steps(self, name: str, count: int) -> Steps[str]:
        """Run `count` steps, and return the name."""
        for _ in range(count):
            self.order.append(name)
            self.now += 1.0
            yield
        return name

    def cooperator(self, turn_seconds: float, *, most: int = 2) -> Cooperator:
        """Return a cooperator on the clock of this work."""
        return Cooperator(most=most, turn_seconds=turn_seconds, clock=lambda: self.now)


@pytest.fixture
def work() -> Work:
    """Work of a test."""
    return Work()


async def test_others_run_after_each_turn(work: Work) -> None:
    """A piece of work keeps the loop for as many steps as fit into a turn, and then others run."""
    task = asyncio.create_task(work.cooperator(2.0).run(work.steps("a", 5)))
    while not task.done():
        work.order.append("other")
        await asyncio.sleep(0)
    assert work.order == ["other", "a", "a", "other", "a", "a", "other", "a"]
    assert task.result() == "a"


async def test_a_few_pieces_of_work_run_at_a_time(work: Work) -> None:
    """No more pieces of work than `most` have begun and not ended; the others begin in the order of their calls."""
    cooperator = work.cooperator(1.0, most=2)
    tasks = [asyncio.create_task(cooperator.run(work.steps(name, 3))) for name in "abcd"]
    await asyncio.sleep(0)
    assert repr(cooperator) == "<Cooperator 2 of 2 running, 2 waiting>"
    assert await asyncio.gather(*tasks) == list("abcd")
    assert work.order == list("abababcdcdcd")
    assert repr(cooperator) == "<Cooperator 0 of 2 running, 0 waiting>"


async def test_an_error_is_the_callers(work: Work) -> None:
    """An error that a step raises reaches the caller, and the place is free again."""

    def failing() -> Steps[None]:
        yield
        raise ValueError("no")

    cooperator = work.cooperator(1.0, most=1)
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            await cooperator.run(failing())
    assert await cooperator.run(work.steps("a", 1)) == "a"


async def test_cancelled_work_ends_at_once(work: Work) -> None:
    """A call that is cancelled runs no further step, whether it has begun or waits, and frees its place."""
    cooperator = work.cooperator(1.0, most=1)
    first, waiting = (asyncio.create_task(cooperator.run(work.steps(name, 100))) for name in "ab")
    await asyncio.sleep(0)
    for task in (waiting, first):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert set(work.order) == {"a"}
    assert len(work.order) < 5
    assert await cooperator.run(work.steps("c", 1)) == "c"


def test_short_work_runs_at_once(work: Work) -> None:
    """Steps that are run to their end return their result, and raise their error."""
    assert finish(work.steps("a", 3)) == "a"
    assert work.order == ["a"] * 3
