"""The questions of a worker before it sends a job, and its reports after the reply (`delivery.lifecycle`)."""

from collections.abc import Sequence
from typing import Protocol

from otpmail.delivery.job import Job
from otpmail.errors import ConnectionLost
from otpmail.smtp.transaction import Results


class DeliveryHandler(Protocol):
    """Decides about each job before it is sent, and after the relay has replied (`delivery.lifecycle`)."""

    def start(self, job: Job) -> bool:
        """Mark the job as being sent. False when it must not be sent any more: cancelled or expired meanwhile."""

    async def begin(self, jobs: Sequence[Job]) -> list[Job]:
        """Have the store note attempts at jobs that were started; returns those that may be sent now."""

    def may_send(self, job: Job) -> bool:
        """Whether a job that was started, and has waited since, may be sent now. Otherwise it is put back or let go."""

    def put_back(self, job: Job) -> None:
        """Put a job back that was started, and not sent."""

    def replied(self, job: Job, results: Results) -> None:
        """Take the relay's reply about each recipient that it was offered."""

    def connection_lost(self, job: Job, error: ConnectionLost) -> None:
        """The connection ended before the relay had replied about all."""

    def requeue(self, job: Job, results: Results) -> None:
        """The relay refused it because too much came at once. The job is queued again, and no attempt counts."""
