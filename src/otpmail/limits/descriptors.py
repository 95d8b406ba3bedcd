"""File descriptors: callers get no more connections than leave descriptors for those to relays.

gRPC waits for a free descriptor without a word, and its callers with it. So there is a limit below that: gRPC closes
further connections at once, and `ConnectionWatch` says so in the log.
"""

import asyncio
import contextlib
import os
import resource
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from otpmail.events import ConnectionsFree, ConnectionsFull, Observer

FOR_PROBES = 8
"""How many connections to HTTP_PORT beyond the limit are answered for probes."""

_MOST = 1 << 20  # the limit of Linux for a process, unless it is set otherwise (fs.nr_open)
_MARGIN = 24  # descriptors that gRPC and the loop open for themselves
_LOOK_SECONDS = 1.0
_QUIET_SECONDS = 60.0  # between two warnings


def raise_limit() -> None:
    """Raise this process's limit of open files as far as it may (getrlimit(2), RLIMIT_NOFILE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # it may be more than the system allows
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def descriptor_limit() -> int:
    """Return how many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else soft


def connections_of_callers(most: int, *, limit: int, in_use: int, kept: int, listeners: int) -> int:
    """Return how many connections each listener may have: `most`, or fewer where descriptors are few.

    `limit` is how many descriptors there may be, `in_use` how many there are, `kept` those for relays and all else.
    """
    return max(1, min(most, (limit - in_use - kept - _MARGIN) // listeners))


def lowest_free() -> int:
    """Return the lowest free descriptor: so many at least are open. Without any it is the limit."""
    try:
        descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return descriptor_limit()
    os.close(descriptor)
    return descriptor


class ConnectionWatch:
    """Tells the observer when an address has as many connections of callers as it may, and when it has fewer again.

    It looks each `look_seconds` whether `most` descriptors are open at all, and only then lets `count` say how many
    connections each address has. It warns once in `quiet_seconds`.
    """

    def __init__(
        self,
        most: int,
        observer: Observer,
        *,
        count: Callable[[Sequence[str]], Awaitable[Counter[str]]],
        open_descriptors: Callable[[], int] = lowest_free,
        look_seconds: float = _LOOK_SECONDS,
        quiet_seconds: float = _QUIET_SECONDS,
    ) -> None:
        self._most = most
        self._observer = observer
        self._count = count
        self._open_descriptors = open_descriptors
        self._look_seconds = look_seconds
        self._quiet_looks = round(quiet_seconds / look_seconds)
        self._full = ""

    def __repr__(self) -> str:
        return f"<ConnectionWatch {'full' if self._full else 'not full'}, at most {self._most}>"

    async def run(self, addresses: Sequence[str]) -> None:
        """Look at these addresses, on which callers connect, until cancelled."""
        quiet = 0
        while True:
            await asyncio.sleep(self._look_seconds)
            quiet = max(0, quiet - 1)
            address = await self._full_address(addresses)
            if address and not self._full and not quiet:
                self._full, quiet = address, self._quiet_looks
                self._observer.notify(ConnectionsFull(address, self._most))
            elif self._full and not address:
                self._observer.notify(ConnectionsFree(self._full, self._most))
                self._full = ""

    async def _full_address(self, addresses: Sequence[str]) -> str:
        """Return the address with the most connections where it takes no more, else an empty one."""
        if self._open_descriptors() < self._most:
            return ""
        [(address, connections)] = (await self._count(addresses)).most_common(1) or [("", 0)]
        return address if connections >= self._most else ""
