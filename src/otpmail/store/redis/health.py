"""Whether the server takes changes: asked four times a second, and at once where a command fails."""

import asyncio
import logging
from collections.abc import Callable

from redis.exceptions import RedisError

from otpmail.errors import StoreError
from otpmail.store.base import StoreState
from otpmail.store.clock import StoreClock
from otpmail.store.redis.client import Client
from otpmail.store.redis.replies import RETRY_SECONDS, Fault, is_fault

_log = logging.getLogger("otpmail")

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
        self._of_lease = ""
        self._failure = ""  # the last mistake of ours in a look, so that each is logged once
        self._reported = False
        self.changed: Callable[[StoreState], None] = lambda _: None
        client.failed = self._look_soon

    def __repr__(self) -> str:
        return f"<Health {self._problem or self._of_lease or 'up'}>"

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
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001  a mistake of ours may not end the looks unseen
                self._note_failure(error)
            else:
                self._failure = ""

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

    def note_lease(self, problem: str) -> None:
        """Report why this replica has no lease, without which it sends no mail; empty once it has one again."""
        self._of_lease = problem
        self._report()

    def _note(self, fault: Fault) -> None:
        self._problem = fault.problem
        self._client.is_away = fault.is_away
        self._report()

    def _note_failure(self, error: Exception) -> None:
        """Log a mistake of ours, and report a problem until a look succeeds: the server's state is not known."""
        if repr(error) != self._failure:
            self._failure = repr(error)
            _log.error("the store can't be watched: %r", error, extra=_UNWATCHED, exc_info=error)
        self._problem = f"STORE_URL: the server can't be watched: {error!r}"
        self._report()

    def _report(self) -> None:
        problem = self._problem or self._of_lease
        if self._reported is not bool(problem):
            self._reported = bool(problem)
            self.changed(StoreState(problem, RETRY_SECONDS if problem else 0.0))


_UNWATCHED = {"event": "store-unwatched", "fields": {}}
