"""Whether the server takes changes: asked four times a second, and at once where a command fails."""

import asyncio
from collections.abc import Callable

from redis.exceptions import RedisError

from otpmail.errors import StoreError
from otpmail.store.base import StoreState
from otpmail.store.clock import StoreClock
from otpmail.store.redis.client import Client
from otpmail.store.redis.replies import RETRY_SECONDS, Fault, is_fault

_EVERY_SECONDS = 0.25
_NONE = Fault("", is_away=False)

# A write, so that a server that has become a replica or has no memory fails it too.
_PROBE = b"redis.call('SET', KEYS[1], '', 'PX', 10000) return redis.call('TIME')"


class Health:
    """Watches the server. Nothing is sent to one that is down; `changed` is called when that begins and ends.

    The server's time moves the store's clock forward. `key` is written by each look.
    """

    def __init__(self, client: Client, clock: StoreClock, key: bytes) -> None:
        self._client = client
        self._clock = clock
        self._key = key
        self._wake = asyncio.Event()
        self._problem = ""
        self.changed: Callable[[StoreState], None] = lambda _: None
        client.failed = self._look_soon

    def __repr__(self) -> str:
        return f"<Health {self._problem or 'up'}>"

    async def begin(self) -> None:
        """Set the clock to the server's. Raises StoreError where the server takes no changes from us."""
        try:
            self._clock.set_to(await self._ask())
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreError(self._client.fault(error).problem) from error

    async def run(self) -> None:
        """Look at the server until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_EVERY_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self.look()

    async def look(self) -> None:
        """Ask the server once, and note whether it takes changes."""
        try:
            now = await self._ask()
        except (RedisError, OSError, TimeoutError) as error:
            if isinstance(error, RedisError) and not is_fault(error):
                return
            self._note(self._client.fault(error))
        else:
            self._clock.never_below(now)
            self._note(_NONE)

    async def _ask(self) -> float:
        """Write the key, and return the server's time."""
        seconds, microseconds = await self._client.probe(b"EVAL", _PROBE, 1, self._key)
        return int(seconds) + int(microseconds) / 1e6

    def _look_soon(self, _: Fault) -> None:
        """Look at once, since a command has failed: that may be about its connection alone."""
        self._wake.set()

    def _note(self, fault: Fault) -> None:
        before, self._problem = self._problem, fault.problem
        self._client.is_away = fault.is_away
        if bool(before) is not bool(fault.problem):
            self.changed(StoreState(fault.problem, RETRY_SECONDS if fault.problem else 0.0))
