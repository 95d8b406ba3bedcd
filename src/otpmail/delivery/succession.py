"""The dial of the connection that follows a worker's present one, while that one serves on."""

import asyncio
from collections.abc import Callable
from functools import partial

from otpmail.errors import ConnectFailed
from otpmail.relays.connection import Connection
from otpmail.relays.failover import Failover


class Succession:
    """At most one dial. It calls `on_done` when that has ended, in whatever way."""

    def __init__(self, failover: Failover, on_done: Callable[[], None]) -> None:
        self._failover = failover
        self._on_done = on_done
        self.dial: asyncio.Task[Connection] | None = None  # in progress, or its connection waits to be used
        self._returning = False  # whether it is to lead back to an earlier relay

    def __repr__(self) -> str:
        state = "none" if self.dial is None else "open" if self.dial.done() else "dialling"
        return f"<Succession {state}>"

    @property
    def is_open(self) -> bool:
        """Whether the connection waits to be used. One whose dial failed is forgotten."""
        if self.dial is None or not self.dial.done():
            return False
        if self.dial.cancelled() or isinstance(self.dial.exception(), ConnectFailed):
            self.dial = None
            return False
        return True

    @property
    def is_attempt(self) -> bool:
        """Whether an earlier relay is being tried, which may take long or fail: the present connection has no heir."""
        return self.dial is not None and self._returning and not self.dial.done()

    def replace(self, connection: Connection) -> None:
        """Dial a connection that replaces this one, over whichever relay is up."""
        self._begin(connection, returning=False)

    def return_before(self, connection: Connection) -> None:
        """Dial a connection to a relay that comes before that of this one."""
        self._begin(connection, returning=True)

    def give_up(self) -> None:
        """Cancel the attempt; `on_done` is called once it has ended."""
        if self.dial is not None:
            self.dial.cancel()

    async def take(self) -> Connection | None:
        """Wait for the connection; None without one, or if it could not be opened. A mere attempt is given up."""
        if self.is_attempt:
            return await self.stop()
        outcome = await self._result()
        if not isinstance(outcome, BaseException):
            return outcome
        if isinstance(outcome, ConnectFailed | asyncio.CancelledError):
            return None
        raise outcome

    async def stop(self) -> Connection | None:
        """Give the dial up; returns the connection if it was open already."""
        if self.dial is not None:
            self.dial.cancel()
        outcome = await self._result()
        return None if isinstance(outcome, BaseException) else outcome

    def _begin(self, connection: Connection, *, returning: bool) -> None:
        connect = self._failover.connect_before(connection) if returning else self._failover.connect()
        self._returning = returning
        self.dial = asyncio.create_task(connect)
        self.dial.add_done_callback(partial(self._done, connection))

    def _done(self, connection: Connection, dial: asyncio.Task[Connection]) -> None:
        if not dial.cancelled() and dial.exception() is None:
            connection.successor_opened()
        self._on_done()

    async def _result(self) -> Connection | BaseException | None:
        if self.dial is None:
            return None
        outcome = (await asyncio.gather(self.dial, return_exceptions=True))[0]
        self.dial = None
        return outcome
