"""Threads of the service: no signal interrupts them, and a call in one returns, raises, and blocks nobody."""

import asyncio
import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from otpmail.threads import call_detached, start_daemon


def test_a_storm_of_signals() -> None:
    """A thread that waits with a timeout goes on, however many signals come in the meantime."""
    waiting: queue.SimpleQueue[None] = queue.SimpleQueue()
    rounds = 0
    started = queue.SimpleQueue[int]()
    done = threading.Event()

    def wait_again_and_again() -> None:
        nonlocal rounds
        started.put(threading.get_ident())
        for rounds in range(1, 201):  # noqa: B007  the test counts them
            with contextlib.suppress(queue.Empty):
                waiting.get(timeout=0.002)
        done.set()
        waiting.get()  # the thread lives until the last signal is sent

    before = signal.signal(signal.SIGHUP, lambda *_: None)
    try:
        start_daemon(wait_again_and_again, "under test")
        thread = started.get()
        ends_at = time.monotonic() + 30
        while not done.wait(0.0001):
            assert time.monotonic() < ends_at, f"stuck after {rounds} rounds"
            signal.pthread_kill(thread, signal.SIGHUP)
    finally:
        waiting.put(None)
        signal.signal(signal.SIGHUP, before)


async def test_its_result() -> None:
    """The result of the call is returned."""
    assert await call_detached(lambda: 7, timeout=10) == 7


async def test_its_error() -> None:
    """An error of the call is raised where it is awaited."""
    with pytest.raises(ZeroDivisionError):
        await call_detached(lambda: 1 // 0, timeout=10)


async def test_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on threads is an error of the system, which callers handle like that of a file."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(BlockingIOError, match="can't start new thread"):
        await call_detached(lambda: 7, timeout=10)


async def test_a_call_that_blocks() -> None:
    """After the timeout the caller goes on, and a result that comes later changes nothing."""
    reading, writing = os.pipe()
    try:
        with pytest.raises(TimeoutError):
            await call_detached(lambda: os.read(reading, 1), timeout=0.05)
        os.write(writing, b".")
        assert await call_detached(lambda: "the next call", timeout=10) == "the next call"
    finally:
        os.close(reading)
        os.close(writing)


async def test_a_caller_that_is_cancelled() -> None:
    """Cancelling the caller does not wait for the call."""
    reading, writing = os.pipe()
    call = asyncio.create_task(call_detached(lambda: os.read(reading, 1), timeout=60))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    os.write(writing, b".")
    os.close(writing)


_ENDS = """
import asyncio, sys
sys.path.insert(0, {sources!r})
from otpmail.threads import call_detached, start_daemon

async def main():
    try:
        await call_detached(lambda: open({pipe!r}).read(), timeout=0.1)
    except TimeoutError:
        print("ends")

asyncio.run(main())
"""


def test_the_process_ends_without_it(tmp_path: Path) -> None:
    """Neither the loop nor the interpreter waits at its end for a call that never returns."""
    os.mkfifo(tmp_path / "pipe")
    script = _ENDS.format(sources=str(Path(__file__).parents[1] / "src"), pipe=str(tmp_path / "pipe"))
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=20)
    assert ended.stdout == "ends\n"
    assert time.monotonic() - began < 20
