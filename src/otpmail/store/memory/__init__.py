"""The memory store: everything in this process, gone with it."""

import asyncio
from collections.abc import Callable

from otpmail.store.base import Issue, StoreState
from otpmail.store.challenges import Rules
from otpmail.store.clock import StoreClock
from otpmail.store.memory.addresses import MemoryAddressStore
from otpmail.store.memory.codes import MemoryChallengeStore
from otpmail.store.memory.mails import MemoryMailStore
from otpmail.store.retention import Retention


class MemoryStore:
    """The store of `STORE_URL=memory:` (see `store.base.Store`). Nothing in it waits, and nothing outlives the process.

    It remembers settled mails and request ids within `retention`, all callers' together within its octets.
    """

    contents = None
    issue: Issue | None = None
    """A record and a mail are kept without a step between them that could fail."""

    def __init__(
        self,
        clock: Callable[[], float] | None = None,
        *,
        retention: Retention,
        rules: Rules,
    ) -> None:
        self._clock = None
        if clock is None:
            clock = self._clock = StoreClock()
        self.addresses = MemoryAddressStore(clock, most=retention.addresses, most_octets=retention.address_octets)
        self.challenges = MemoryChallengeStore(clock, rules)
        self.mails = MemoryMailStore(clock, retention=retention)

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
            if self._clock is not None:
                tasks.create_task(_keep_up_forever(self._clock, every))

    async def close(self) -> None:
        """Return at once: what it keeps ends with the process."""


async def _keep_up_forever(clock: StoreClock, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        clock.keep_up()
