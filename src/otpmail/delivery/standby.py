"""Decides which workers keep a connection while there is nothing to send, and how often that one is replaced.

A relay that closes what is idle would otherwise see a sign-in from each worker every few seconds, all day.
"""

import asyncio
from contextlib import suppress
from math import inf

from otpmail import backoff
from otpmail.delivery.dispatch import Dispatcher
from otpmail.relays.connection import Connection

_WORTH_SECONDS = 7.0  # Amazon SES closes after ten; one kept connection is at most 514 sign-ins an hour
_FIRST_SECONDS = 1.0
_MOST_SECONDS = 60.0
_TOGETHER_SECONDS = 0.05  # connections that are dialled within this time count as one


class Standby:
    """Counts the workers that have a connection or want one. Times are on the loop's clock.

    As many workers as EMAIL_STANDBY says keep a connection. Another worker whose connection has been idle for too long
    goes without one until a mail needs it. Kept connections are replaced at once, so one is open at any time.

    Where none lasts for `worth_seconds` that would be a sign-in every second or two. There, once two in a row have
    carried no mail, the next is dialled a second after the last one was. That wait doubles, up to a minute: an idle
    hour has about 60 sign-ins.
    """

    def __init__(self, workers: int, *, worth_seconds: float = _WORTH_SECONDS) -> None:
        self._worth_seconds = worth_seconds
        self._awake = workers
        self._counted = -inf  # when the newest of those was begun to be dialled
        self._unused = 0  # connections in a row that ended soon, without having carried a mail

    def __repr__(self) -> str:
        return f"<Standby {self._awake} awake, {self._unused} unused in a row>"

    def next_dial(self, connection: Connection) -> float:
        """When the connection that follows an idle one may be dialled, on the clock; infinity: when a mail needs it."""
        owner = connection.owner
        # A relay that closed one for the first time may only have restarted.
        if self._awake > owner.standby and (owner.closes_idle or not connection.lost_cause):
            return inf
        further = self._unused_with(connection) - 1
        wait = backoff.exponential(further, first=_FIRST_SECONDS, cap=_MOST_SECONDS) if further > 0 else 0.0
        return connection.begun + wait

    def ended(self, connection: Connection) -> None:
        """Note that an idle connection has ended."""
        self._unused = self._unused_with(connection)
        self._counted = max(self._counted, connection.begun)

    def _unused_with(self, connection: Connection) -> int:
        if connection.carried or connection.age >= self._worth_seconds:
            return 0
        return self._unused + (connection.begun > self._counted + _TOGETHER_SECONDS)

    def fell_asleep(self) -> None:
        """A worker goes without a connection until a mail needs it."""
        self._awake -= 1

    def woke(self) -> None:
        """A worker dials again, since a mail needs its connection."""
        self._awake += 1


class Rest:
    """One worker's wait without a connection while there is nothing to send."""

    def __init__(self, standby: Standby, dispatcher: Dispatcher) -> None:
        self._standby = standby
        self._dispatcher = dispatcher
        self._loop = asyncio.get_running_loop()
        self._until = -inf  # on the loop's clock
        self._waiting: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Rest until {self._until:g}>"

    def is_due(self, connection: Connection) -> bool:
        """Whether this connection is to end, and no other one to be dialled yet."""
        return connection.is_idle_too_long and self._standby.next_dial(connection) > self._loop.time()

    def ended(self, connection: Connection) -> None:
        """Decide when the next connection is dialled, after this one: later only if there was nothing to send."""
        self._until = -inf
        if connection.idle_at_end is not None or connection.is_idle_too_long:
            self._until = self._standby.next_dial(connection)
            self._standby.ended(connection)

    async def over(self) -> None:
        """Wait until a mail needs a connection, or until it is time for another one that is kept."""
        until, self._until = self._until, -inf
        if until <= self._loop.time() or not self._dispatcher.queue.empty():
            return
        self._waiting = self._loop.create_future()
        self._dispatcher.rest(self)
        if until == inf:
            self._standby.fell_asleep()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(None if until == inf else until):
                    await self._waiting
        finally:
            self._dispatcher.end_rest(self)
            if until == inf:
                self._standby.woke()

    def wake(self) -> None:
        """End it: a mail has found no idle connection."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
