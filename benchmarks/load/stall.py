"""How long one turn of an event loop takes at most: every other caller waits meanwhile."""

import asyncio
import gc
import time
from typing import Self


class StallProbe:
    """The longest turn of the running loop within the block, in seconds: by the clock, and in this thread's CPU time.

    A turn lies between two calls of a callback that schedules itself again at once. So a garbage collection counts,
    wherever it falls. Time that other processes take counts by the clock alone.
    """

    def __init__(self) -> None:
        self.clock = 0.0
        self.processor = 0.0
        self._loop = asyncio.get_running_loop()
        self._last = (0.0, 0.0)
        self._handle: asyncio.Handle | None = None

    def __repr__(self) -> str:
        return f"<StallProbe {self.clock * 1000:.2f} ms>"

    def __enter__(self) -> Self:
        self._last = (time.perf_counter(), time.thread_time())
        self._handle = self._loop.call_soon(self._tick)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._handle is not None
        self._handle.cancel()
        self._look()

    def _look(self) -> None:
        now = (time.perf_counter(), time.thread_time())
        self.clock = max(self.clock, now[0] - self._last[0])
        self.processor = max(self.processor, now[1] - self._last[1])
        self._last = now

    def _tick(self) -> None:
        self._look()
        self._handle = self._loop.call_soon(self._tick)


class Collections:
    """The longest garbage collection within the block, in seconds of this thread's CPU time."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._began = 0.0

    def __repr__(self) -> str:
        return f"<Collections, at most {self.longest * 1000:.2f} ms>"

    def __enter__(self) -> Self:
        gc.callbacks.append(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._note)

    def _note(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self.longest = max(self.longest, time.thread_time() - self._began)
