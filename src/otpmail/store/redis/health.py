"""Whether the server takes changes: asked four times a second, and at once where a command fails."""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from redis.exceptions import RedisError

from otpmail.errors import StoreError
from otpmail.store.base import StoreState
from otpmail.store.clock import StoreClock
from otpmail.store.redis.client import Client
from otpmail.store.redis.keys import LAYOUT, Keys
from otpmail.store.redis.replies import RETRY_SECONDS, Fault, is_fault
from otpmail.store.redis.script import Script

_LOOK = Script.load("clock_look")

_log = logging.getLogger("otpmail")

_EVERY_SECONDS = 0.25
_MOST_STEP = 0.01  # seconds that a look moves our clock forward at most: a server whose clock is wrong ends no mail
_NONE = Fault("", is_away=False)


class _Look(NamedTuple):
    """The server's answer to a look: the time that codes go by, its own, and two layouts (see `clock_look.lua`)."""

    code_time: float
    time: float
    known_layout: int
    written_layout: int


class Health:
    """Watches the server. Nothing is sent to one that is down; `changed` is called when that begins and ends.

    The server's time moves `clock` forward, slowly. `code_clock` follows the time that codes go by: that does not fall
    back, since each look tells the server how late it is at least. `keys` gets the layout that all replicas know.
    """

    def __init__(self, client: Client, clock: StoreClock, keys: Keys, *, code_clock: StoreClock) -> None:
        self._client = client
        self._clock = clock
        self._code_clock = code_clock
        self._keys = keys
        self._told: tuple[float, float] | None = (
            None  # the latest time of codes, and when that was on a monotonic clock
        )
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
        """Set the clocks to the server's. Raises StoreError where the server takes no changes from us."""
        try:
            look = await self._ask()
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreError(self._client.fault(error).problem) from error
        if look.written_layout > LAYOUT:
            raise StoreError(
                f"STORE_URL: the server at {self._client.endpoint} was written by a newer otpmail (layout "
                f"{look.written_layout}; this one knows {LAYOUT})"
            )
        self._clock.set_to(look.time)
        self._code_clock.set_to(look.code_time)

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
            look = await self._ask()
        except (RedisError, OSError, TimeoutError) as error:
            if isinstance(error, RedisError) and not is_fault(error):
                return
            self._note(self._client.fault(error))
        else:
            if self._code_clock is not self._clock:
                self._code_clock.set_to(look.code_time)
            self._clock.follow(look.time, most=_MOST_STEP)
            self._note(_NONE)

    async def _ask(self) -> _Look:
        """Write a key, so that a server that has become a replica or has no memory fails, and return what it says."""
        keys = self._keys
        least = "" if self._told is None else self._told[0] + monotonic() - self._told[1]
        names = (keys.named("health"), keys.clock, keys.owners, keys.written_layout)
        answer = await self._client.probe(b"EVAL", _LOOK.text, len(names), *names, least, LAYOUT)
        look = _Look(float(answer[0]), float(answer[1]), int(answer[2]), int(answer[3]))
        self._told = look.code_time, monotonic()
        keys.layout = look.known_layout
        return look

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
