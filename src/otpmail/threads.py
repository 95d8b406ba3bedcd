"""Calls what may block, such as a file on a file system that is away, in a thread that nobody has to wait for."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import TypeVar

ResultT = TypeVar("ResultT")


async def call_detached(work: Callable[[], ResultT], *, timeout: float) -> ResultT:
    """Call `work` in a thread of its own, and return or raise what it does.

    Raises TimeoutError after `timeout` seconds. Then, and when the caller is cancelled, the thread is left alone: it
    delays neither the loop's end nor that of the process, as those of `asyncio.to_thread` do.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[ResultT] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        if not future.done():  # as by a timeout
            outcome()

    def run() -> None:
        try:
            outcome = partial(future.set_result, work())
        except BaseException as error:  # noqa: BLE001  the caller's to handle
            outcome = partial(future.set_exception, error)
        with suppress(RuntimeError):  # the loop has ended, and the caller with it
            loop.call_soon_threadsafe(settle, outcome)

    Thread(target=run, name=f"detached {getattr(work, '__name__', work)}", daemon=True).start()
    async with asyncio.timeout(timeout):
        return await future
