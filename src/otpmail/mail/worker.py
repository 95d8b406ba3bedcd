"""A worker: a coroutine that owns one long-lived connection and feeds it from the queue.

It decides nothing about a mail's fate: what the relay said, or that the connection was lost, goes to the desk.
"""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Protocol

from otpmail.errors import ConnectFailed, ConnectionLost
from otpmail.events import ConnectionClosed, Observer
from otpmail.mail.job import Job
from otpmail.mail.queue import STALLED, MailQueue
from otpmail.smtp.connection import Connection
from otpmail.smtp.route import Route
from otpmail.smtp.transaction import Results


class Desk(Protocol):
    """Where a worker shows a job before it is sent, and reports what became of it."""

    def begin(self, job: Job) -> bool:
        """Mark the job as being sent. False when it is no longer to be sent: cancelled or expired meanwhile."""

    def answered(self, job: Job, results: Results) -> None:
        """The relay has said something about each recipient that it was offered."""

    def lost(self, job: Job, error: ConnectionLost) -> None:
        """The connection ended before the relay said all."""


class Worker:
    """Takes a mail whenever its connection has room, and replaces the connection before it wears out."""

    def __init__(self, route: Route, queue: MailQueue, desk: Desk, observer: Observer) -> None:
        self._route = route
        self._queue = queue
        self._desk = desk
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._successor: asyncio.Task[Connection] | None = None
        self._returning = False  # whether the successor is to lead back to an earlier relay
        self._leaving: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._waiting: asyncio.Timeout | None = None

    def __repr__(self) -> str:
        return f"<Worker {self._connection!r}, {len(self._leaving)} leaving>"

    async def run(self) -> None:
        """Work until cancelled, then take leave of the relay."""
        try:
            while True:
                self._connection = await self._next_connection()
                await self._feed(self._connection)
                self._connection.keeper.released(self._connection)
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
        if isinstance(outcome, Connection):
            return outcome
        if isinstance(outcome, ConnectFailed | asyncio.CancelledError):
            return await self._route.connect()
        raise outcome

    async def _feed(self, connection: Connection) -> None:
        """Hand mails to the connection until it is lost, may carry no more, or is due and its successor is ready."""
        connection.watch(on_lost=self._look_up, on_room=self._woken.set)
        # One that may carry no more is not held until its successor is there: the relay may allow no more of them.
        while not (connection.lost_cause or connection.spent or self._succeeded()):
            if self._successor is None:
                self._provide_for(connection)
            pause = connection.keeper.pause()
            if pause or not connection.room:
                await self._change(self._loop.time() + pause if pause else self._review_at(connection))
            elif (job := await self._next(connection)) is not None:
                self._send(connection, job)

    def _provide_for(self, connection: Connection) -> None:
        """Dial a successor if the connection is due, or if a relay that comes before its own may be well again."""
        self._returning = not connection.due
        if connection.due:
            self._successor = asyncio.create_task(self._route.connect())
        elif self._route.return_at(connection) <= self._loop.time():
            self._successor = asyncio.create_task(self._route.connect_before(connection))
        if self._successor is not None:
            self._successor.add_done_callback(lambda _: self._look_up())

    def _succeeded(self) -> bool:
        """Whether the successor is ready. One that could not be had is forgotten: the connection serves on."""
        if self._successor is None or not self._successor.done():
            return False
        if isinstance(self._successor.exception(), ConnectFailed):
            self._successor = None
            return False
        return True

    def _review_at(self, connection: Connection) -> float | None:
        """When to look at the connection again though nothing happens, on the loop's clock."""
        if self._successor is not None:
            return None
        when = min(connection.retire_at, self._route.return_at(connection))
        return when if when < float("inf") else None

    async def _change(self, until: float | None) -> None:
        """Wait until the connection has room, or something else about it has changed."""
        self._woken.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._woken.wait()

    async def _next(self, connection: Connection) -> Job | None:
        """The next job, or None when something about the connection has changed first."""
        job = self._queue.take_nowait(_load(connection))
        if job is not None:
            return job
        try:
            async with asyncio.timeout_at(self._review_at(connection)) as self._waiting:
                return await self._queue.take(partial(_load, connection))
        except TimeoutError:
            return None
        finally:
            self._waiting = None

    def _look_up(self) -> None:
        """The connection was lost or its successor is ready: whatever is awaited, look at it again."""
        self._woken.set()
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(0)

    def _send(self, connection: Connection, job: Job) -> None:
        if not connection.room or connection.keeper.pause():  # it changed while the job was awaited
            self._queue.put_back(job)
        elif self._desk.begin(job):
            connection.keeper.takes_slot()
            sending = connection.send(job.envelope.only(job.offered))
            sending.add_done_callback(partial(self._done, connection, job))

    def _done(self, connection: Connection, job: Job, sending: asyncio.Future[Results]) -> None:
        error = sending.exception()
        if error is None:
            results = sending.result()
            if any(result.accepted for result in results):
                connection.keeper.took_mail(connection)
            self._desk.answered(job, results)
        elif isinstance(error, ConnectionLost):
            self._desk.lost(job, error)
        else:
            self._desk.lost(job, ConnectionLost(f"unforeseen: {error!r}", uncertain=True))

    def _see_off(self, connection: Connection) -> None:
        leaving = asyncio.create_task(self._leave(connection))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _leave(self, connection: Connection) -> None:
        cause = connection.lost_cause or "worn, old or idle"
        try:
            await connection.drained()
        finally:
            await connection.close()
            self._observer.notify(ConnectionClosed(connection.keeper.name, cause, connection.sent))

    async def _stop(self) -> None:
        """Close what is open; a successor that is still being dialled is given up."""
        if self._successor is not None:
            self._successor.cancel()
            outcome = (await asyncio.gather(self._successor, return_exceptions=True))[0]
            if isinstance(outcome, Connection):
                self._see_off(outcome)
        if self._connection is not None:
            self._see_off(self._connection)
        await asyncio.sleep(0)  # let those just begun begin, so that cancelling them closes their connections
        leaving = list(self._leaving)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)


def _load(connection: Connection) -> int:
    return connection.load + STALLED if connection.stalled else connection.load
