"""A worker: a coroutine that owns one long-lived connection and feeds it from the queue.

It decides nothing about a mail's fate: what the relay said, or that the connection was lost, goes to the desk.
"""

import asyncio
from functools import partial
from math import inf
from typing import Protocol

from otpmail.delivery.job import Job
from otpmail.delivery.queue import STALLED, MailQueue
from otpmail.errors import ConnectFailed, ConnectionLost
from otpmail.events import ConnectionClosed, Observer
from otpmail.relays.connection import Connection
from otpmail.relays.failover import Failover
from otpmail.smtp.transaction import Results


class DeliveryHandler(Protocol):
    """Where a worker shows a job before it is sent, and reports what became of it."""

    def begin(self, job: Job) -> bool:
        """Mark the job as being sent. False when it is no longer to be sent: cancelled or expired meanwhile."""

    def answered(self, job: Job, results: Results) -> None:
        """The relay has said something about each recipient that it was offered."""

    def lost(self, job: Job, error: ConnectionLost) -> None:
        """The connection ended before the relay said all."""


class Worker:
    """Takes a mail whenever its connection has room, and replaces the connection before it wears out."""

    def __init__(self, route: Failover, queue: MailQueue, desk: DeliveryHandler, observer: Observer) -> None:
        self._route = route
        self._queue = queue
        self._desk = desk
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._successor: asyncio.Task[Connection] | None = None
        self._returning = False  # whether the successor is to lead back to an earlier relay
        self._leaving: dict[asyncio.Task[None], Connection] = {}
        self._recycled = 0  # connections that it replaced before they were lost
        self._turn: asyncio.Future[None] | None = None  # what it waits for, while it waits
        self._alarm: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Worker {self._connection!r}, {len(self._leaving)} leaving, {self._recycled} recycled>"

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The one that it feeds, and those that wait for their last answers."""
        return (*((self._connection,) if self._connection is not None else ()), *self._leaving.values())

    async def run(self) -> None:
        """Work until cancelled, then take leave of the relay."""
        try:
            while True:
                self._connection = await self._next_connection()
                await self._feed(self._connection)
                self._connection.owner.released(self._connection)
                # What is in flight on it is answered while the next connection is at work.
                self._see_off(self._connection)
                self._connection = None
        finally:
            await self._stop()

    async def _next_connection(self) -> Connection:
        """The successor, if there is one to be had; else a new connection."""
        if self._successor is None:
            return await self._route.connect()
        if self._returning and not self._successor.done():  # an earlier relay is being tried: the next one is there
            self._successor.cancel()
        outcome = (await asyncio.gather(self._successor, return_exceptions=True))[0]
        self._successor = None
        if not isinstance(outcome, BaseException):
            return outcome
        if isinstance(outcome, ConnectFailed | asyncio.CancelledError):
            return await self._route.connect()
        raise outcome

    @property
    def load(self) -> int:
        """How much it has in hand, as the queue wants to know it (`queue.Taker`)."""
        connection = self._connection
        if connection is None:
            return 0
        load = connection.load
        return load + STALLED if load and connection.stalled else load

    def wake(self) -> None:
        """Look again: there may be a mail, or room for one, or the connection is lost, or its successor is ready."""
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    async def _feed(self, connection: Connection) -> None:
        """Hand mails to the connection until it is lost, may carry no more, or is due and its successor is ready."""
        connection.watch(on_lost=self.wake, on_available=self.wake)
        # One that may carry no more is not held until its successor is there: the relay may allow no more of them.
        while not (connection.lost_cause or connection.is_exhausted or self._succeeded()):
            if self._successor is None:
                self._provide_for(connection)
            pause = connection.owner.pause()
            if pause or not connection.is_available:
                await self._wait(self._loop.time() + pause if pause else self._review_at(connection))
            else:
                job = self._queue.take_nowait(self) or await self._next(connection)
                while job is not None and self._send(connection, job):
                    if not self._may_send(connection):
                        self._queue.pass_on()
                        break
                    job = self._queue.take_nowait(self)
                else:
                    if job is not None:
                        self._queue.pass_on()
                        await asyncio.sleep(0)  # there may be thousands of which none can be sent

    async def _next(self, connection: Connection) -> Job | None:
        """Wait until it is this worker's turn, or something about the connection has changed; then the job, if any."""
        self._queue.add_waiting(self)
        try:
            await self._wait(self._review_at(connection))
        except BaseException:
            self._queue.dismiss(self)
            self._queue.pass_on()
            raise
        self._queue.dismiss(self)
        if self._may_send(connection):
            return self._queue.take_nowait(self)
        self._queue.pass_on()
        return None

    @staticmethod
    def _may_send(connection: Connection) -> bool:
        return connection.is_available and not connection.owner.pause()

    async def _wait(self, until: float) -> None:
        """Wait to be woken, at most until then on the loop's clock; it may be sooner for no reason."""
        # The last alarm serves on where it is early enough: the loop's timers cost more than waking up once in vain.
        if self._alarm is None or self._alarm.when() > until:
            self._cancel_alarm()
            if until < inf:
                self._alarm = self._loop.call_at(until, self._ring)
        self._turn = self._loop.create_future()
        try:
            await self._turn
        finally:
            self._turn = None

    def _ring(self) -> None:
        self._alarm = None
        self.wake()

    def _cancel_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _provide_for(self, connection: Connection) -> None:
        """Dial a successor if the connection is due, or if a relay that comes before its own may be well again."""
        self._returning = not connection.should_retire
        if connection.should_retire:
            self._successor = asyncio.create_task(self._route.connect())
        elif self._route.return_at(connection) <= self._loop.time():
            self._successor = asyncio.create_task(self._route.connect_before(connection))
        if self._successor is not None:
            self._successor.add_done_callback(lambda _: self.wake())

    def _succeeded(self) -> bool:
        """Whether the successor is ready. One that could not be had is forgotten: the connection serves on."""
        if self._successor is None or not self._successor.done():
            return False
        if isinstance(self._successor.exception(), ConnectFailed):
            self._successor = None
            return False
        return True

    def _review_at(self, connection: Connection) -> float:
        """When to look at the connection again though nothing happens, on the loop's clock."""
        return inf if self._successor is not None else min(connection.retire_at, self._route.return_at(connection))

    def _send(self, connection: Connection, job: Job) -> bool:
        """Hand the job over, unless it is not to be sent, or not here; returns whether it is on its way."""
        if not self._desk.begin(job):
            return False
        if not connection.send(job.offer, partial(self._told, connection, job)):
            return False  # the relay can't take such a mail, and was not asked
        connection.owner.takes_slot()
        return True

    def _told(self, connection: Connection, job: Job, outcome: Results | ConnectionLost) -> None:
        if isinstance(outcome, ConnectionLost):
            self._desk.lost(job, outcome)
            return
        for result in outcome:
            if result.accepted:
                connection.owner.took_mail(connection)
                break
        self._desk.answered(job, outcome)

    def _see_off(self, connection: Connection, *, replaced: bool = True) -> None:
        recycled = replaced and not connection.lost_cause
        self._recycled += recycled
        leaving = asyncio.create_task(self._leave(connection, recycled=recycled))
        self._leaving[leaving] = connection
        leaving.add_done_callback(lambda task: self._leaving.pop(task, None))

    async def _leave(self, connection: Connection, *, recycled: bool) -> None:
        cause = connection.lost_cause or ("worn, old or idle" if recycled else "the service stops")
        try:
            await connection.drained()
        finally:
            await connection.close()
            task = asyncio.current_task()
            assert task is not None
            self._leaving.pop(task, None)  # before others are told what it sent: nobody is to count that twice
            self._observer.notify(ConnectionClosed(connection.owner.name, cause, connection.sent, recycled))

    async def _stop(self) -> None:
        """Close what is open; a successor that is still being dialled is given up."""
        self._cancel_alarm()
        if self._successor is not None:
            self._successor.cancel()
            outcome = (await asyncio.gather(self._successor, return_exceptions=True))[0]
            if not isinstance(outcome, BaseException):
                self._see_off(outcome, replaced=False)
        if self._connection is not None:
            self._see_off(self._connection, replaced=False)
        await asyncio.sleep(0)  # let those just begun begin, so that cancelling them closes their connections
        leaving = list(self._leaving)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
