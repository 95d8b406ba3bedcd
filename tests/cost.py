"""Measures of work, which the garbage collector and other threads have no part in."""

import gc
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any


def lines_run(act: Callable[[], object]) -> int:
    """How many lines of Python `act` runs through; the garbage collector, which may run others' code, waits."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    gc.disable()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


def seconds_of(act: Callable[[], object]) -> float:
    """How much processor time `act` takes in this thread.

    The garbage collector waits: it takes half a second in a process that has collected all of the tests.
    """
    gc.disable()
    began = time.thread_time()
    try:
        act()
        return time.thread_time() - began
    finally:
        gc.enable()
