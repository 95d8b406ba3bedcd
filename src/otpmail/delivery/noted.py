"""Sends jobs of which the store has to know before their first octet leaves (`delivery.attempts`)."""

from collections.abc import Callable
from functools import partial

from otpmail.delivery.dispatch import Dispatcher, Taker
from otpmail.delivery.handler import DeliveryHandler
from otpmail.delivery.job import Job
from otpmail.errors import ConnectionLost
from otpmail.model import Priority
from otpmail.relays.connection import Connection
from otpmail.smtp.transaction import Results

OnOutcome = Callable[[Connection, Job, Results | ConnectionLost], None]


class NotedSending:
    """The part of a worker that waits for the store. `on_outcome` gets what becomes of each job that was sent."""

    def __init__(self, worker: Taker, dispatcher: Dispatcher, handler: DeliveryHandler, on_outcome: OnOutcome) -> None:
        self._worker = worker
        self._dispatcher = dispatcher
        self._handler = handler
        self._on_outcome = on_outcome

    def __repr__(self) -> str:
        return f"<NotedSending of {self._worker!r}>"

    async def send(self, connection: Connection, job: Job) -> bool:
        """Send a started job, and those behind it that the connection has room for, once the store has noted them.

        One commit is for all of them. Returns whether the relay is asked about any; those without room wait again.
        """
        jobs = [job, *self._further(connection)]
        may_go = await self._handler.begin(jobs)
        throttle, sent, asked = connection.owner.throttle, 0, 0
        for one in may_go:
            is_urgent = one.priority is Priority.URGENT
            if not (connection.is_available or (is_urgent and connection.takes_urgent)):
                self._handler.put_back(one)
                continue
            sent += 1
            if connection.send(one.offer, partial(self._on_outcome, connection, one)):
                asked += 1
                if throttle.is_limited:
                    throttle.take_slot(urgent=is_urgent)
        for _ in range(len(jobs) - sent):
            self._dispatcher.queue.task_done()
        return asked > 0

    def _further(self, connection: Connection) -> list[Job]:
        jobs: list[Job] = []
        limit = min(connection.window, connection.in_flight_limit)
        room = 1 if connection.owner.throttle.is_limited else limit - connection.in_flight
        while len(jobs) + 1 < room and (job := self._dispatcher.take(self._worker)) is not None:
            if self._handler.start(job):
                jobs.append(job)
            else:
                self._dispatcher.queue.task_done()
        return jobs
