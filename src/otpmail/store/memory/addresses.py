"""The records of addresses, in this process alone."""

import asyncio
import secrets
from collections.abc import Callable

from otpmail.store.addresses import AddressTable, CallersAddress, Changed, Rule
from otpmail.suppression import AddressRecord


class MemoryAddressStore(AddressTable):
    """The records of addresses until this process ends (see `store.addresses.AddressStore`)."""

    def __init__(self, clock: Callable[[], float], *, most: int, most_octets: int) -> None:
        super().__init__((secrets.token_bytes(32),), clock, most=most, most_octets=most_octets)

    def note(self, whose: CallersAddress, rule: Rule) -> Changed:
        """Apply a rule."""
        return self.apply(whose, rule)

    async def update(self, whose: CallersAddress, rule: Rule) -> Changed:
        """Apply a rule."""
        return self.apply(whose, rule)

    async def read(self, whose: CallersAddress) -> AddressRecord | None:
        """Return what `find` does: no other process knows anything."""
        return self.find(whose)

    async def sweep_forever(self, every: float) -> None:
        """Forget what has ended each `every` seconds until cancelled."""
        while True:
            await asyncio.sleep(every)
            async for _ in self.sweep():
                pass
