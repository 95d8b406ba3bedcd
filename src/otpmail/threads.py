"""Starts the threads of the service, which no signal interrupts, and calls in one what may block."""

import asyncio
import errno
import signal
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import TypeVar

ResultT = TypeVar("ResultT")

_OF_THE_THREAD = {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV}
"""Signals that a thread raises by what it does. While they are blocked, no handler can report the crash."""


def start_daemon(work: Callable[[], object], name: str) -> None:
    """Start a thread that the end of the process does not wait for, and that gets no signal.

    Raises RuntimeError where no thread can be started. Signals reach the main thread, where Python handles them. In
    another thread one can turn the timeout of a `SimpleQueue.get` into none. CPython computes it anew after the
    interruption, and takes a negative rest for "wait for ever".
    """

    def run() -> None:
        """Block the signals, then do the work."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _OF_THE_THREAD)
        work()

    Thread(target=run, name=name, daemon=True).start()


async def call_detached(work: Callable[[], ResultT], *, timeout: float) -> ResultT:
    """Call `work` in a thread of its own, and return or raise what it does.

    Raises TimeoutError after `timeout` seconds, and OSError where no thread can be started. A thread whose caller has
    gone on delays neither the end of the loop nor that of the process, as those of `asyncio.to_thread` do.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[ResultT] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        """Give the future its outcome, unless it has one."""
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
        start_daemon(run, f"detached {getattr(work, '__name__', work)}")
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

    start_daemon(run, f"call {getattr(work, '__name__', work)}")
    return future.result()
