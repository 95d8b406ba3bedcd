"""Sends mails that the relay in use can't take over another relay, which may: for SMTPUTF8, 8BITMIME or SIZE.

Codes whose profile names a relay go here too. Each worker has one of these, and runs it beside itself.
"""

import asyncio
from collections import deque
from contextlib import suppress
from functools import partial
from math import inf
from typing import NamedTuple

from otpmail.delivery.handler import DeliveryHandler
from otpmail.delivery.job import Job
from otpmail.delivery.refusals import REFUSED, is_no_attempt, judged
from otpmail.errors import ConnectFailed, ConnectionLost
from otpmail.events import ConnectionClosed, Observer
from otpmail.model import Priority, RecipientResult
from otpmail.relays.connection import Connection
from otpmail.relays.failover import Failover
from otpmail.relays.owner import ConnectionOwner, Slots
from otpmail.smtp.transaction import Results, Unasked

_LOOK_SECONDS = 1.0  # between two looks whether a relay has places for the connections of others


class _Detour(NamedTuple):
    """A job, the relay that can't take it, and the replies that this relay would give."""

    job: Job
    owner: ConnectionOwner
    results: Unasked


class Detours:
    """Many mails in flight, begun in their order; `handler` gets what becomes of each.

    It has a connection to each relay that such mails are for. It closes one that has been idle for as long as any other
    may be, or at once where the relay takes no further connection.
    """

    def __init__(self, failover: Failover, handler: DeliveryHandler, observer: Observer) -> None:
        self._failover = failover
        self._handler = handler
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Detour] = deque()
        self._changed = asyncio.Event()  # a mail was taken, or a connection has room, or is lost
        self._open: dict[ConnectionOwner, Connection] = {}

    def __repr__(self) -> str:
        return f"<Detours {len(self._waiting)} wait, {self.connections}>"

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The open connections of detours."""
        return tuple(self._open.values())

    def take(self, owner: ConnectionOwner, job: Job, results: Unasked) -> bool:
        """Send a job that was started over another relay than this one; False if none can take it either."""
        if not self._failover.others(owner, job.offer):
            return False
        self._waiting.append(_Detour(job, owner, results))
        self._changed.set()
        return True

    async def run(self) -> None:
        """Send what is taken, until cancelled. Then put back what waits, and close the connections."""
        try:
            while True:
                while self._waiting:
                    await self._send(self._waiting[0])
                await self._rest()
        finally:
            while self._waiting:
                self._handler.put_back(self._waiting.pop().job)
            for connection in self.connections:
                await self._close(connection, at_once=True)

    async def _rest(self) -> None:
        """Wait for a mail, and close the connections that are lost, or are kept for nothing."""
        until = inf
        for connection in self.connections:
            retire_at = connection.retire_at if connection.owner.has_place or connection.in_flight else 0.0
            if connection.lost_cause or retire_at <= self._loop.time():
                await self._close(connection)
            else:
                until = min(until, retire_at, self._loop.time() + _LOOK_SECONDS)
        if not self._waiting:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(None if until == inf else until):
                    await self._changed.wait()

    async def _send(self, detour: _Detour) -> None:
        """Send the first job that waits over a relay that takes it. If none can be reached, the job is deferred.

        The job still waits afterwards where the connection to the relay has ended before its turn.
        """
        job, results = detour.job, tuple(detour.results)
        for owner in self._failover.others(detour.owner, job.offer):
            try:
                connection = await self._connect(owner)
            except ConnectFailed as error:
                results = tuple([_deferred(result, error) for result in detour.results])
                continue
            if not connection.capabilities.rejects(connection.capabilities.adapted(job.offer)):
                await self._send_over(connection, job)
                return
        self._waiting.popleft()
        self._handler.replied(job, results)

    async def _send_over(self, connection: Connection, job: Job) -> None:
        throttle, is_urgent = connection.owner.throttle, job.priority is Priority.URGENT
        if job.deaths:  # it may have ended processes, so nothing else is in flight beside it
            await connection.drained()
        while pause := _pause(throttle, urgent=is_urgent):  # noqa: ASYNC110  a rate has no event
            await asyncio.sleep(pause)  # a worker may take the slot meanwhile
        if not self._handler.may_send(job):  # it may be another process's by now, or too late
            self._waiting.popleft()
            return
        if not (connection.is_available or (is_urgent and connection.takes_urgent)):
            if not _is_over(connection):  # it has as many mails in flight as it may
                self._changed.clear()
                await self._changed.wait()
            return
        self._waiting.popleft()  # from here on a stop leaves it to the end of the connection
        if throttle.is_limited:
            throttle.take_slot(urgent=is_urgent)
        connection.send(job.offer, partial(self._on_outcome, connection, job))
        if job.deaths:
            await connection.drained()

    def _on_outcome(self, connection: Connection, job: Job, outcome: Results | ConnectionLost) -> None:
        job.relay = connection.owner.name
        if isinstance(outcome, ConnectionLost):
            self._handler.connection_lost(job, judged(connection, outcome))
            return
        if any(result.accepted for result in outcome):
            connection.owner.accepted_mail(connection)
        if outcome and outcome[-1].code >= REFUSED and is_no_attempt(connection, outcome):
            self._handler.requeue(job, outcome)
        else:
            self._handler.replied(job, outcome)

    async def _connect(self, owner: ConnectionOwner) -> Connection:
        """Return the connection that leads to this relay, or a new one. Raises ConnectFailed."""
        connection = self._open.get(owner)
        if connection is not None and _is_over(connection):
            await self._close(connection)
            connection = None
        if connection is None:
            connection = self._open[owner] = await owner.connect(patient=False)
            connection.watch(on_lost=self._changed.set, on_available=self._changed.set)
        return connection

    async def _close(self, connection: Connection, *, at_once: bool = False) -> None:
        """Close a connection, once no mail is in flight on it unless that is to be `at_once`."""
        connection.owner.released(connection)
        try:
            if not at_once:
                await connection.drained()
        finally:
            del self._open[connection.owner]
            await connection.close()
            cause = connection.lost_cause or "no further mail is only for this relay"
            self._observer.notify(ConnectionClosed(connection.owner.name, cause, connection.sent, recycled=False))


def _is_over(connection: Connection) -> bool:
    """Whether a connection takes no mail any more."""
    return bool(connection.lost_cause) or connection.is_exhausted


def _pause(throttle: Slots, *, urgent: bool) -> float:
    """Return the seconds until the relay may be sent another mail, 0 for at once."""
    if not throttle.is_limited:
        return 0.0
    return throttle.urgent_pause() if urgent else throttle.pause()


def _deferred(result: RecipientResult, error: ConnectFailed) -> RecipientResult:
    """Return the result of a recipient for whom another relay may take the mail later."""
    reply = f"{result.reply}, and another one can't be reached: {error}"
    return RecipientResult(result.address, 451, "4.4.1", reply)
