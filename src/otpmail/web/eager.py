"""Starts an answer eagerly, in the present step of the loop: one that does not wait needs no task.

asyncio has tasks of this kind from Python 3.12 on, and makes one for each answer.
"""

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context
from types import coroutine
from typing import Any


def start_eagerly(loop: asyncio.AbstractEventLoop, answer: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Run an answer until it waits, in a context of its own. Returns the task of the rest, None where it has ended.

    Until then it has no task: `asyncio.timeout` and `asyncio.current_task` are not for it.
    """
    context = Context()
    try:
        waits_for = context.run(answer.send, None)
    except StopIteration:
        return None
    rest = _rest(answer, waits_for)
    context.run(rest.send, None)  # so that a task which is cancelled before its first step still ends the answer
    return loop.create_task(rest, context=context)


async def _rest(answer: Coroutine[Any, Any, None], waits_for: Any) -> None:
    await _go_on(answer, waits_for)


@coroutine
def _go_on(answer: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    is_begun = False
    try:
        while True:
            try:
                yield waits_for if is_begun else None
            except BaseException as error:  # noqa: BLE001  the answer takes it, as if it had waited by itself
                if not is_begun and waits_for is not None and waits_for.cancel():
                    is_begun = True  # as the cancel of a task does: the answer goes on once that has ended
                else:
                    waits_for, is_begun = answer.throw(error), True
            else:
                waits_for, is_begun = answer.send(None) if is_begun else waits_for, True
    except StopIteration:
        return
