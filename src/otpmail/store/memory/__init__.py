"""The memory store: everything in this process, gone with it."""

import asyncio
from collections.abc import Callable
from math import inf
from sys import maxsize

from otpmail.store.base import MOST_REQUESTS, REQUEST_SECONDS, Issue, StoreState
from otpmail.store.challenges import Rules
from otpmail.store.clock import StoreClock
from otpmail.store.memory.addresses import MemoryAddressStore
from otpmail.store.memory.codes import MemoryChallengeStore
from otpmail.store.memory.mails import MemoryMailStore


class MemoryStore:
    """The store of `STORE_URL=memory:` (see `store.base.Store`). Nothing in it waits, and nothing outlives the process.

    It remembers a settled mail for `remember_seconds`, and at most `remember_count` of them. These and request ids take
    at most about `remember_octets` of memory.
    """

    contents = None
    issue: Issue | None = None
    """A record and a mail are kept without a step between them that could fail."""

    def __init__(
        self,
        clock: Callable[[], float] | None = None,
        *,
        remember_seconds: float = inf,
        remember_count: int,
        remember_octets: int = maxsize,
        request_seconds: float = REQUEST_SECONDS,
        most_requests: int = MOST_REQUESTS,
        most_addresses: int = maxsize,
        address_octets: int = maxsize,
        rules: Rules,
    ) -> None:
        clock = clock or StoreClock()
        self.addresses = MemoryAddressStore(clock, most=most_addresses, most_octets=address_octets)
        self.challenges = MemoryChallengeStore(clock, rules)
        self.mails = MemoryMailStore(
            clock,
            remember_seconds=remember_seconds,
            remember_count=remember_count,
            remember_octets=remember_octets,
            request_seconds=request_seconds,
            most_requests=most_requests,
        )

    def __repr__(self) -> str:
        return f"<MemoryStore {self.challenges!r}, {self.mails!r}>"

    @property
    def unwritten(self) -> int:
        """Return 0: whatever changes is kept at once."""
        return 0

    async def open(self) -> None:
        """Return at once: there is nothing to lock, and nobody to connect to."""

    def watch(self, changed: Callable[[StoreState], None]) -> None:
        """Return at once: it always takes changes."""

    async def sweep_forever(self, every: float) -> None:
        """Drop what has ended of codes and addresses each `every` seconds until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.challenges.sweep_forever(every))
            tasks.create_task(self.addresses.sweep_forever(every))

    async def close(self) -> None:
        """Return at once: what it keeps ends with the process."""
