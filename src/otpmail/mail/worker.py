"""A worker: a coroutine that owns one long-lived connection and feeds it from the queue.

It decides nothing about a mail's fate: what the relay said, or that the connection was lost, goes to the desk.
"""

import asyncio
from functools import partial
from typing import Protocol

from otpmail.errors import ConnectionLost
from otpmail.events import ConnectionClosed, Observer
from otpmail.mail.job import Job
from otpmail.mail.queue import MailQueue
from otpmail.smtp.connection import Connection
from otpmail.smtp.relay import Relay
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

    def __init__(self, relay: Relay, queue: MailQueue, desk: Desk, observer: Observer) -> None:
        self._relay = relay
        self._queue = queue
        self._desk = desk
        self._observer = observer
        self._connection: Connection | None = None
        self._successor: asyncio.Task[Connection] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._waiting: asyncio.Timeout | None = None

    def __repr__(self) -> str:
        return f"<Worker {self._connection!r}, {len(self._leaving)} leaving>"

    async def run(self) -> None:
        """Work until cancelled, then take leave of the relay."""
        try:
            while True:
                self._connection = await (self._successor or self._relay.connect())
                self._successor = None
                await self._feed(self._connection)
                self._relay.released(self._connection)
                # What is in flight on it is answered while the next connection is at work.
                leaving = asyncio.create_task(self._leave(self._connection))
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)
                self._connection = None
        finally:
            await self._stop()

    async def _feed(self, connection: Connection) -> None:
        """Hand mails to the connection until it is lost, or it is due and its successor is ready."""
        connection.watch(on_lost=self._look_up, on_room=self._woken.set)
        while not connection.lost_cause and not (self._successor and self._successor.done()):
            if connection.due and self._successor is None:
                self._successor = asyncio.create_task(self._relay.connect())
                self._successor.add_done_callback(lambda _: self._look_up())
            if not connection.room:
                await self._room(connection)
            elif (job := await self._next(connection)) is not None:
                self._send(connection, job)

    async def _room(self, connection: Connection) -> None:
        """Wait until the connection has room, or something else about it has changed."""
        self._woken.clear()
        try:
            async with asyncio.timeout_at(None if self._successor else connection.retire_at):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _next(self, connection: Connection) -> Job | None:
        """The next job, or None when something about the connection has changed first."""
        try:
            async with asyncio.timeout_at(None if self._successor else connection.retire_at) as self._waiting:
                return await self._queue.take(lambda: connection.in_flight)
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
        if not connection.room:  # it went, or filled up, while the job was awaited
            self._queue.put_back(job)
        elif self._desk.begin(job):
            sending = connection.send(job.envelope.only(job.offered))
            sending.add_done_callback(partial(self._done, job))

    def _done(self, job: Job, sending: asyncio.Future[Results]) -> None:
        error = sending.exception()
        if error is None:
            results = sending.result()
            if any(result.accepted for result in results):
                self._relay.took_mail()
            self._desk.answered(job, results)
        elif isinstance(error, ConnectionLost):
            self._desk.lost(job, error)
        else:
            self._desk.lost(job, ConnectionLost(f"unforeseen: {error!r}", uncertain=True))

    async def _leave(self, connection: Connection) -> None:
        cause = connection.lost_cause or "worn, old or idle"
        try:
            await connection.drained()
        finally:
            await connection.close()
            self._observer.notify(ConnectionClosed(self._relay.name, cause, connection.sent))

    async def _stop(self) -> None:
        """Close what is open; a successor that is still being dialled is given up."""
        if self._successor is not None:
            self._successor.cancel()
            outcome = (await asyncio.gather(self._successor, return_exceptions=True))[0]
            if isinstance(outcome, Connection):
                await outcome.close()
        if self._connection is not None:
            self._leaving.add(asyncio.create_task(self._leave(self._connection)))
        await asyncio.sleep(0)  # let the newest begin, so that cancelling it closes its connection
        for leaving in self._leaving:
            leaving.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
