"""Measures of work, which the garbage collector and other threads have no part in."""

import gc
import re
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
    """How much processor time `act` takes in this thread, on a machine of the usual speed.

    The time of a fixed piece of work, before and after, shows how slow the machine is. The garbage collector waits: it
    takes half a second in a process that has collected all of the tests.
    """
    gc.disable()
    try:
        before = _slowness()
        took = _thread_seconds(act)
        return took / max(1.0, before, _slowness())
    finally:
        gc.enable()


_USUAL_SECONDS = 0.0015
"""Of the fixed piece of work: measured on two cores of an AMD EPYC with nothing else to do."""

_WORDS, _WORD = "abcab7 " * 1500, re.compile(r"(?:a|b)*?c|[a-z]+\d{3}")


def _slowness() -> float:
    """How many times as long as usual the fixed piece of work takes: the least of three."""
    return min(_thread_seconds(_work) for _ in range(3)) / _USUAL_SECONDS


def _work() -> int:
    """Match a pattern, and count: what is measured in the tests is of these two kinds."""
    octets = sum(len(found[0]) for found in _WORD.finditer(_WORDS))
    for number in range(20_000):
        octets += number & 3
    return octets


def _thread_seconds(act: Callable[[], object]) -> float:
    began = time.thread_time()
    act()
    return time.thread_time() - began
