"""Descriptors: how many connections callers get, and when the log says that there are no more."""

import asyncio
import os
import resource
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence

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
    """The lowest free descriptor rises with those that are open, and falls with them."""
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


ADDRESSES = ("127.0.0.1:40700", "[::1]:40700")


def _counts(*pairs: tuple[int, int]) -> Callable[[Sequence[str]], Awaitable[Counter[str]]]:
    """Return a count that says one pair after the other, and then fails."""
    left = iter(pairs)

    async def count(addresses: Sequence[str]) -> Counter[str]:
        return Counter(dict(zip(addresses, next(left), strict=True)))

    return count


async def _watch(
    *pairs: tuple[int, int], quiet_seconds: float = 0.001, descriptors: Callable[[], int] = lambda: 1000
) -> list[Event]:
    """Run a watch of addresses with 100 connections at most until the pairs have ended; returns the events."""
    seen = Seen()
    watch = ConnectionWatch(
        100,
        seen,
        count=_counts(*pairs),
        open_descriptors=descriptors,
        look_seconds=0.001,
        quiet_seconds=quiet_seconds,
    )
    with pytest.raises(RuntimeError):  # the pairs have ended, as StopIteration in a coroutine
        await watch.run(ADDRESSES)
    return [seen.events.get_nowait() for _ in range(seen.events.qsize())]


async def test_a_warning_and_its_end() -> None:
    """The watch says once that an address has all its connections, which one, and once that it has fewer again."""
    events = await _watch((0, 0), (99, 99), (100, 0), (130, 10), (99, 99), (0, 100), (99, 0))
    assert events == [
        *(kind(ADDRESSES[0], 100) for kind in (ConnectionsFull, ConnectionsFree)),
        *(kind(ADDRESSES[1], 100) for kind in (ConnectionsFull, ConnectionsFree)),
    ]


async def test_connections_are_counted_only_where_there_may_be_many() -> None:
    """While fewer descriptors are open than one address may have connections, nothing is counted."""
    descriptors = iter([5, 99, 100])
    events = await _watch((100, 0), (0, 0), descriptors=lambda: next(descriptors, 1000))
    assert [type(event) for event in events] == [ConnectionsFull, ConnectionsFree]
    assert next(descriptors, None) is None


async def test_warnings_are_rare() -> None:
    """Callers that open and close connections again and again cause one warning in a while."""
    events = await _watch(*[(100, 0), (0, 0)] * 50, quiet_seconds=0.02)
    assert 4 <= sum(isinstance(event, ConnectionsFull) for event in events) <= 6
