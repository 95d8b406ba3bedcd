"""Long work in steps on the event loop, so that other callbacks run between two of them.

A thread would not do: Python code, and C code that holds the interpreter, keep the loop waiting wherever they run.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from typing import TypeVar

T = TypeVar("T")

Steps = Generator[None, None, T]
"""Work that yields between its steps, and returns its result. A step takes a millisecond at most."""

TURN_SECONDS = 0.002
"""How long one piece of work may keep the event loop before other callbacks run."""

_MOST = 2  # so that one piece of work never waits for a far larger one, and two take the loop for two turns at most


class Cooperator:
    """Runs long work in steps, a few pieces of work at a time; the others wait, first come, first served.

    `turn_seconds` is how long a piece of work keeps the loop at a time, by `clock`, which counts seconds. `give_way`
    returns an awaitable that ends once others have had the loop.
    """

    def __init__(
        self,
        *,
        most: int = _MOST,
        turn_seconds: float = TURN_SECONDS,
        clock: Callable[[], float] = time.perf_counter,
        give_way: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._give_way = give_way or _let_others_run
        self._most = most
        self._turn_seconds = turn_seconds
        self._clock = clock
        self._places = asyncio.Semaphore(most)
        self._running = self._waiting = 0

    def __repr__(self) -> str:
        return f"<Cooperator {self._running} of {self._most} running, {self._waiting} waiting>"

    async def run(self, steps: Steps[T]) -> T:
        """Run the steps to their end and return their result; other callbacks run after each turn.

        Raises what a step raises. Cancelling the call ends the work between two steps.
        """
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        self._running += 1
        try:
            return await self._run(steps)
        finally:
            steps.close()  # an error's traceback would keep what has been made so far
            self._running -= 1
            self._places.release()

    async def _run(self, steps: Steps[T]) -> T:
        end_of_turn = self._clock() + self._turn_seconds
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            if self._clock() >= end_of_turn:
                await self._give_way()
                end_of_turn = self._clock() + self._turn_seconds


async def _let_others_run() -> None:
    await asyncio.sleep(0)


def finish(steps: Steps[T]) -> T:
    """Run the steps to their end at once, and return their result: for work that is known to be short."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
