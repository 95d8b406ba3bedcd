"""Says which worker dials a relay that is not well, and how the others wait for that."""

import asyncio
from contextlib import suppress

from otpmail.errors import ConnectFailed
from otpmail.relays.availability import Availability
from otpmail.relays.breaker import Breaker
from otpmail.relays.concurrency import Concurrency


class Turns:
    """One worker at a time dials; `changed` wakes the others.

    Each wait with `patient=False` raises ConnectFailed in place of waiting for long. `look_seconds` is the time between
    two looks at the result of another worker's dial.
    """

    def __init__(
        self, name: str, breaker: Breaker, availability: Availability, concurrency: Concurrency, *, look_seconds: float
    ) -> None:
        self._name = name
        self._breaker, self._availability, self._concurrency = breaker, availability, concurrency
        self._look_seconds = look_seconds
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Turns {'taken' if self._turn.locked() else 'free'}>"

    @property
    def are_taken_while_down(self) -> bool:
        """Whether the relay is down and a worker dials it."""
        return self._availability.down and self._turn.locked()

    async def changed(self) -> None:
        """Wait until the relay may be dialled sooner (`notify_changed`)."""
        await self._changed.wait()

    def notify_changed(self) -> None:
        """Have those that wait look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def acquire(self, *, patient: bool) -> None:
        """Wait for the turn to dial. With `patient=False` only while the relay does not count as down."""
        while not patient:
            try:
                async with asyncio.timeout(self._look_seconds):
                    await self._turn.acquire()
            except TimeoutError:
                if self._availability.down:
                    raise self.taken_by_another() from None
            else:
                return
        await self._turn.acquire()

    def release(self) -> None:
        """Pass the turn on."""
        self._turn.release()

    async def next_try(self, *, patient: bool) -> None:
        """Wait until the relay may be dialled, or has proved to be well on another connection."""
        while (seconds := self._breaker.next_try - self._loop.time()) > 0:
            if not patient:
                self._availability.refused()
                raise ConnectFailed(f"{self._name} is not to be dialled yet")
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.changed()

    async def next_place(self, *, patient: bool) -> None:
        """Wait until the relay may take a further connection: one is closed, or one more is tried."""
        if not patient:
            raise ConnectFailed(f"{self._name} takes no further connection")
        with suppress(TimeoutError):
            async with asyncio.timeout(self._concurrency.free_at() - self._loop.time()):
                await self.changed()

    def taken_by_another(self) -> ConnectFailed:
        """Return the error of a worker that does not wait for another one's dial."""
        return ConnectFailed(f"{self._name} is down, and another worker dials it")
