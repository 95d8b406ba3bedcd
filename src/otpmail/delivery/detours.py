"""Sends mails that the relay in use can't take over another relay, which may: for SMTPUTF8, 8BITMIME or SIZE.

Each worker has one of these, and runs it beside itself. It has a connection while there are such mails, and no longer.
"""

import asyncio
from collections import deque
from functools import partial
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


class _Detour(NamedTuple):
    """A job, the relay that can't take it, and what that one would say."""

    job: Job
    owner: ConnectionOwner
    results: Unasked


class Detours:
    """One mail after the other, in their order; `handler` gets what becomes of each."""

    def __init__(self, failover: Failover, handler: DeliveryHandler, observer: Observer) -> None:
        self._failover = failover
        self._handler = handler
        self._observer = observer
        self._waiting: deque[_Detour] = deque()
        self._taken = asyncio.Event()
        self.connection: Connection | None = None

    def __repr__(self) -> str:
        return f"<Detours {len(self._waiting)} wait, {self.connection!r}>"

    def take(self, owner: ConnectionOwner, job: Job, results: Unasked) -> bool:
        """Send a job that was started over another relay than this one; False if none can take it either."""
        if not self._failover.others(owner, job.offer):
            return False
        self._waiting.append(_Detour(job, owner, results))
        self._taken.set()
        return True

    async def run(self) -> None:
        """Send what is taken, until cancelled. Then put back what waits, and close the connection."""
        try:
            while True:
                await self._taken.wait()
                self._taken.clear()
                await self._send_all()
        finally:
            while self._waiting:
                self._handler.put_back(self._waiting.pop().job)

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                await self._send(self._waiting[0])
        finally:
            await self._close()

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
        while pause := _pause(throttle, urgent=is_urgent):  # noqa: ASYNC110  a rate has no event
            await asyncio.sleep(pause)  # a worker may take the slot meanwhile
        if not self._handler.may_send(job):  # it may be another process's by now, or too late
            self._waiting.popleft()
            return
        if not connection.is_available:  # the relay may have closed it meanwhile
            return
        self._waiting.popleft()  # from here on a stop leaves it to the end of the connection
        if throttle.is_limited:
            throttle.take_slot(urgent=is_urgent)
        replied = asyncio.Event()
        connection.send(job.offer, partial(self._on_outcome, connection, job, replied))
        await replied.wait()

    def _on_outcome(
        self, connection: Connection, job: Job, replied: asyncio.Event, outcome: Results | ConnectionLost
    ) -> None:
        replied.set()
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
        if self.connection is not None and not (self.connection.owner is owner and self.connection.is_available):
            await self._close()
        if self.connection is None:
            self.connection = await owner.connect(patient=False)
        return self.connection

    async def _close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.owner.released(connection)
            await connection.close()
            cause = connection.lost_cause or "no further mail is only for this relay"
            self._observer.notify(ConnectionClosed(connection.owner.name, cause, connection.sent, recycled=False))


def _pause(throttle: Slots, *, urgent: bool) -> float:
    """Return the seconds until the relay may be sent another mail, 0 for at once."""
    if not throttle.is_limited:
        return 0.0
    return throttle.urgent_pause() if urgent else throttle.pause()


def _deferred(result: RecipientResult, error: ConnectFailed) -> RecipientResult:
    """Return the result of a recipient for whom another relay may take the mail later."""
    reply = f"{result.reply}, and another one can't be reached: {error}"
    return RecipientResult(result.address, 451, "4.4.1", reply)
