"""A worker: a coroutine that owns one long-lived connection, and sends the dispatcher's mails over it.

It decides nothing about a mail: the relay's replies, and lost connections, go to the delivery handler.
"""

import asyncio
from functools import partial
from math import inf

from otpmail.delivery.alarm import Alarm
from otpmail.delivery.detours import Detours
from otpmail.delivery.dispatch import Dispatcher
from otpmail.delivery.handler import DeliveryHandler
from otpmail.delivery.job import Job
from otpmail.delivery.noted import NotedSending
from otpmail.delivery.refusals import REFUSED, is_no_attempt, judged
from otpmail.delivery.standby import Rest, Standby
from otpmail.delivery.succession import Succession
from otpmail.errors import ConnectionLost
from otpmail.events import ConnectionClosed, Observer
from otpmail.model import Priority
from otpmail.relays.connection import Connection
from otpmail.relays.failover import Failover
from otpmail.smtp.transaction import Results, Unasked

_LOOK_SECONDS = 0.1  # between two looks whether a connection that is used up first has stalled


class Worker:
    """Sends a mail whenever its connection has room, and replaces the connection before it wears out."""

    def __init__(
        self,
        failover: Failover,
        dispatcher: Dispatcher,
        handler: DeliveryHandler,
        observer: Observer,
        standby: Standby,
    ) -> None:
        self._failover = failover
        self._dispatcher = dispatcher
        self._handler = handler
        self._observer = observer
        self._noted = NotedSending(self, dispatcher, handler, self._on_outcome)
        self._detours = Detours(failover, handler, observer)
        self._rest = Rest(standby, dispatcher)
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._succession = Succession(failover, self.wake)
        self._may_return = False  # whether a relay comes before that of its connection
        self._leaving: dict[Connection, asyncio.Task[None]] = {}
        self._recycled = 0  # connections that it replaced before they were lost
        self._waiting: asyncio.Future[None] | None = None  # set while it waits: its end wakes the worker
        self._listed = False  # whether it waits for its turn
        self.busy = False  # whether mails are in flight on its connection
        self._alarm = Alarm(self.wake)

    def __repr__(self) -> str:
        return f"<Worker {self._connection!r}, {len(self._leaving)} leaving, {self._recycled} recycled>"

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The connection that it feeds, and those that wait for their last replies."""
        fed = () if self._connection is None else (self._connection,)
        return (*fed, *self._detours.connections, *self._leaving)

    @property
    def load(self) -> int:
        """How many mails in flight the next one would wait for (see `dispatch.Taker`)."""
        connection = self._connection
        return connection.load() if connection is not None and self.busy else 0

    async def run(self) -> None:
        """Work until cancelled, then close the connections. An error of ours, in any of its tasks, ends all of them."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._detours.run())
            try:
                await self._work(tasks)
            finally:
                await self._stop()

    def wake(self) -> None:
        """Have the worker look again: it has the turn, or its connection has room, is lost, or has a successor."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # Sending.

    async def _work(self, tasks: asyncio.TaskGroup) -> None:
        """Send over one connection after the other; `tasks` close those that it has left."""
        while True:
            self._connection = await self._next_connection()
            await self._feed(self._connection)
            self._connection.owner.released(self._connection)
            self._rest.ended(self._connection)
            # The relay replies about what is in flight on it while the next connection is at work.
            self._retire(self._connection, tasks)
            self._connection = None

    async def _feed(self, connection: Connection) -> None:
        """Send over the connection until it is lost, takes no more, or is to retire and its successor is ready.

        Under load a connection that nears its limit of mails is used up first: every mail spares a part of a dial.
        """
        self.busy = False
        self._may_return = self._failover.return_at(connection) < inf
        on_available = partial(self._on_available, connection)
        connection.watch(on_lost=self.wake, on_available=on_available, on_limit=self.wake)
        while True:
            has_room = await self._send_all(connection)
            if not has_room:
                self._dispatcher.leave(self)
                # One that takes no more does not wait for its successor: the relay may allow no more connections.
                if connection.lost_cause or connection.is_exhausted:
                    return
            if self._succession.dial is not None and self._is_succeeded(connection):
                return
            until = self._renew(connection)
            if until == -inf:
                return
            await self._wait(connection, until, listed=has_room)

    async def _send_all(self, connection: Connection) -> bool:
        """Send what the dispatcher gives this worker; returns whether there is room for more."""
        throttle, take = connection.owner.throttle, self._dispatcher.take
        limited = throttle.is_limited
        while True:
            has_room = connection.is_available
            if has_room and not (limited and throttle.pause()):
                job = take(self)
                if job is None:
                    return True
            elif (
                not (has_room or connection.takes_urgent)
                or (limited and throttle.urgent_pause())
                or (job := self._dispatcher.take_urgent(self)) is None
            ):
                return False
            if not self._handler.start(job):
                self._dispatcher.queue.task_done()
            elif job.is_noted_first:
                self.busy = await self._noted.send(connection, job) or self.busy
                continue
            elif connection.send(job.offer, partial(self._on_outcome, connection, job)):
                self.busy = True
                if limited:
                    throttle.take_slot(urgent=job.priority is Priority.URGENT)
                continue
            await asyncio.sleep(0)  # there may be thousands that are not sent: cancelled, expired, or too large

    def _on_outcome(self, connection: Connection, job: Job, outcome: Results | ConnectionLost) -> None:
        job.relay = connection.owner.name
        try:
            if isinstance(outcome, ConnectionLost):
                self._handler.connection_lost(job, judged(connection, outcome))
                return
            if connection.owner.is_in_trouble and any(result.accepted for result in outcome):
                connection.owner.accepted_mail(connection)
            if outcome and outcome[-1].code >= REFUSED and is_no_attempt(connection, outcome):
                self._handler.requeue(job, outcome)
            elif isinstance(outcome, Unasked) and self._detours.take(connection.owner, job, outcome):
                pass
            else:
                self._handler.replied(job, outcome)
        finally:
            self._dispatcher.queue.task_done()  # not before it may be put back, or `join` would return too early

    def _on_available(self, connection: Connection) -> None:
        """The connection has had replies. The worker need not look again where it waits for its turn anyway."""
        if connection is not self._connection:  # it is to be closed, and takes no more mails
            return
        idle = not connection.flights
        if idle:
            self.busy = False
        if not self._listed or (idle and self._succession.dial is not None):
            self.wake()
        elif idle:
            self._dispatcher.became_idle(self)

    # Waiting.

    async def _wait(self, connection: Connection, until: float, *, listed: bool) -> None:
        """Wait until it is its turn, or something about the connection has changed; it may be sooner for no reason.

        `until` is on the loop's clock. `listed`: it has room, so the dispatcher may give it the turn.
        """
        self._listed = listed
        if not listed and (connection.is_available or connection.takes_urgent):
            until = min(until, self._next_slot(connection))
        if until < self._alarm.at:
            self._alarm.set(until)
        if listed:
            self._dispatcher.wait(self, busy=self.busy)
        self._waiting = self._loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None
            self._listed = False

    def _next_slot(self, connection: Connection) -> float:
        """When the relay may be sent a mail that it can't be sent now, on the loop's clock.

        If it may be sent an urgent one now, the dispatcher wakes this worker for that.
        """
        throttle = connection.owner.throttle
        pause = throttle.pause() if connection.is_available else inf
        if urgent_pause := throttle.urgent_pause():
            pause = min(pause, urgent_pause)
        else:
            self._dispatcher.wait_for_urgent(self)
        return self._loop.time() + pause

    # The next connection.

    async def _next_connection(self) -> Connection:
        """Return the successor, if there is one; else a new connection, once one is needed."""
        if self._succession.dial is not None:
            successor = await self._succession.take()
            if successor is not None:
                return successor
        await self._rest.over()
        return await self._failover.connect()

    def _renew(self, connection: Connection) -> float:
        """Dial a successor if the connection is to retire, or if an earlier relay may be up again.

        Returns when to ask again, on the loop's clock; minus infinity if the connection is to end before another is
        dialled.
        """
        if self._succession.dial is not None and not self._succession.is_attempt:
            # Once it is open, it waits until the connection is used up or stalls.
            return self._loop.time() + _LOOK_SECONDS if self._succession.is_open else inf
        now, retire_at = self._loop.time(), connection.retire_at
        if retire_at <= now:
            return self._replace(connection)
        if self._succession.dial is not None or not self._may_return:
            return retire_at
        return_at = self._failover.return_at(connection)
        if return_at > now:
            return min(retire_at, return_at)
        self._succession.return_before(connection)
        return retire_at

    def _replace(self, connection: Connection) -> float:
        """Dial its successor, unless none is needed now or the relay takes no further one; returns as `_renew` does."""
        if self._rest.is_due(connection):
            return -inf
        if self._succession.dial is not None:
            self._succession.give_up()
            return inf
        if not (connection.owner.has_place or connection.is_near_limit):
            return -inf
        self._succession.replace(connection)
        return inf

    def _is_succeeded(self, connection: Connection) -> bool:
        """Whether the successor takes over now: not before a busy connection has carried as many mails as it may."""
        is_used_up_first = self.busy and connection.is_near_limit and not connection.stalled
        return self._succession.is_open and not is_used_up_first

    def _retire(self, connection: Connection, tasks: asyncio.TaskGroup) -> None:
        self._recycled += not connection.lost_cause
        self._leaving[connection] = tasks.create_task(self._drain(connection))

    async def _drain(self, connection: Connection) -> None:
        """Close a connection once no mail is in flight on it, or at once where the task is cancelled.

        One that is lost with mails in flight was not recycled.
        """
        try:
            await connection.drained()
        finally:
            cause = connection.lost_cause
            await self._close(connection, cause or "worn, old or idle", recycled=not cause)

    async def _close(self, connection: Connection, cause: str, *, recycled: bool) -> None:
        try:
            await connection.close()
        finally:
            # Before observers learn what it sent: no metric may count that twice.
            self._leaving.pop(connection, None)
            self._observer.notify(ConnectionClosed(connection.owner.name, cause, connection.sent, recycled))

    async def _stop(self) -> None:
        """Pass the turn on, and close all connections; the dial of a successor is cancelled."""
        self._dispatcher.leave(self)
        self._alarm.cancel()
        successor = await self._succession.stop()
        leaving = list(self._leaving.values())
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)  # the tasks of `run`, which raise what went wrong
        # A task that was cancelled before it began has left its connection open.
        others = [one for one in (successor, self._connection, *self._leaving) if one is not None]
        self._connection = None
        async with asyncio.TaskGroup() as tasks:
            for one in others:
                closing = self._close(one, one.lost_cause or "the service stops", recycled=False)
                self._leaving[one] = tasks.create_task(closing)
