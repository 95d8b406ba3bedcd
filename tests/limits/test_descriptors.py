"""Descriptors: how many connections callers get, and when the log says that there are no more."""

import asyncio
import os
import resource
from collections.abc import Iterator

import pytest

from otpmail.events import ConnectionsFree, ConnectionsFull, Event
from otpmail.limits.descriptors import (
    ConnectionWatch,
    connections_of_callers,
    descriptor_limit,
    lowest_free,
    raise_limit,
)


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    """Return this process's limits of open files, and restore them."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("limit", "listeners", "expected"),
    [(1 << 20, 2, 1000), (1200, 1, 1000), (1200, 2, 558), (256, 1, 172), (64, 1, 1)],
)
def test_relays_have_their_descriptors(limit: int, listeners: int, expected: int) -> None:
    """Callers get what relays, metrics and the process itself leave, and one connection at the least."""
    assert connections_of_callers(1000, limit=limit, in_use=30, kept=30, listeners=listeners) == expected


def test_the_limit_is_raised(limits: tuple[int, int]) -> None:
    """A process may open as many files as the hard limit says, whatever it was started with."""
    _, hard = limits
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(300, hard), hard))
    raise_limit()
    assert descriptor_limit() == min(hard, 1 << 20)


def test_the_lowest_free_descriptor() -> None:
    """It rises with the descriptors that are open, and falls with them."""
    before = lowest_free()
    opened = [os.dup(0) for _ in range(10)]
    assert lowest_free() >= before + 10
    for descriptor in opened:
        os.close(descriptor)
    assert lowest_free() == before


def test_without_a_free_descriptor(limits: tuple[int, int]) -> None:
    """Where not even one can be opened, all are in use."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free(), limits[1]))
    assert lowest_free() == descriptor_limit()


class Seen:
    """An observer that lets a test wait for events."""

    event_types: frozenset[type[Event]] = frozenset({ConnectionsFull, ConnectionsFree})

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()

    def notify(self, event: Event) -> None:
        """Keep it."""
        self.events.put_nowait(event)


async def test_a_warning_and_its_end() -> None:
    """The watch says once that callers have all their connections, and once that they have fewer again."""
    counts = iter([30, 100, 129, 130, 500, 129, 130, 130, 90])
    seen = Seen()
    watch = ConnectionWatch(100, seen, open_descriptors=lambda: next(counts), look_seconds=0.001, quiet_seconds=0.001)
    with pytest.raises(RuntimeError):  # the numbers have ended, as StopIteration in a coroutine
        await watch.run()
    events = [seen.events.get_nowait() for _ in range(seen.events.qsize())]
    assert events == [ConnectionsFull(100), ConnectionsFree(100)] * 2


async def test_warnings_are_rare() -> None:
    """Callers that open and close connections again and again cause one warning in a while."""
    counts = iter([30, *[130, 30] * 50])
    seen = Seen()
    watch = ConnectionWatch(100, seen, open_descriptors=lambda: next(counts), look_seconds=0.001, quiet_seconds=0.02)
    with pytest.raises(RuntimeError):
        await watch.run()
    events = [seen.events.get_nowait() for _ in range(seen.events.qsize())]
    assert 4 <= events.count(ConnectionsFull(100)) <= 6
