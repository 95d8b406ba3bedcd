"""Calls what may block, as a file system that does not answer, in a thread that nobody has to wait for."""

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import TypeVar

ResultT = TypeVar("ResultT")


async def call_detached(work: Callable[[], ResultT], *, timeout: float) -> ResultT:
    """Call `work` in a thread of its own, and return or raise what it does.

    Raises TimeoutError after `timeout` seconds, and OSError where no thread can be started. A thread whose caller has
    gone on delays neither the end of the loop nor that of the process, as those of `asyncio.to_thread` do.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[ResultT] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        if not future.done():  # as by a timeout
            outcome()

    def run() -> None:
        """Call `work`, and settle the future in its loop."""
        try:
            outcome = partial(future.set_result, work())
        except BaseException as error:  # noqa: BLE001  the caller's to handle
            outcome = partial(future.set_exception, error)
        with suppress(RuntimeError):  # the loop has ended, and the caller with it
            loop.call_soon_threadsafe(settle, outcome)

    try:
        Thread(target=run, name=f"detached {getattr(work, '__name__', work)}", daemon=True).start()
    except RuntimeError as error:  # a limit on processes and threads
        raise OSError(errno.EAGAIN, str(error)) from None
    async with asyncio.timeout(timeout):
        return await future


def call_interruptibly(work: Callable[[], ResultT]) -> ResultT:
    """Call `work` in a thread, wait for it, and return or raise what it does.

    A handler of a signal runs meanwhile. It would wait for a call in C, such as one of the system's resolver.
    """
    future: Future[ResultT] = Future()

    def run() -> None:
        """Call `work`, and settle the future."""
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  the caller's to handle
            future.set_exception(error)

    Thread(target=run, name=f"call {getattr(work, '__name__', work)}", daemon=True).start()
    return future.result()
