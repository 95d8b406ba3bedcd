"""Keeps the garbage collector of the whole process from blocking the loop."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_COLLECT_AFTER = (2_000, 4, 1_000)  # more objects than freed; then collections of the generation before


@contextmanager
def pausing_the_collector() -> Iterator[None]:
    """Collect no garbage while modules are imported, and exempt them from all collections after that.

    Nearly all that an import makes stays. The collections that look for the rest took a seventh of a start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def spare_the_collector() -> None:
    """Exempt what was made so far from garbage collection, and make collections rare, for the whole process.

    A mail leaves little garbage that only the collector finds, but makes enough objects to start a collection every few
    mails. Young objects are collected a few at a time, because each collection blocks the loop.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
