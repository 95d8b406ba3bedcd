"""Mails that are not even written, since their one recipient is suppressed."""

from collections.abc import Callable
from typing import Protocol

from otpmail.callers import Call
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.suppressions import result_of
from otpmail.model import Envelope, Labels, Priority
from otpmail.suppression import Suppression


class Labelled(Protocol):
    """A request with its id and its labels, which come back with its mail."""

    @property
    def request_id(self) -> str:
        """The caller's name for it."""

    @property
    def labels(self) -> Labels:
        """The caller's own notes."""


class Unsent:
    """Settles such mails, which are remembered as others are. Their Message-ID ends with `domain`."""

    def __init__(self, lifecycle: Lifecycle, now: Callable[[], float], *, domain: str) -> None:
        self._lifecycle = lifecycle
        self._now = now
        self._domain = domain

    def __repr__(self) -> str:
        return f"<Unsent {self._lifecycle!r}>"

    async def leave_out(
        self, call: Call, request: Labelled, address: str, suppression: Suppression, mail_id: str
    ) -> Job:
        """Settle the urgent mail of a request as FAILED. Raises Unavailable while the service stops."""
        job = Job(
            mail_id,
            call.caller.name,
            f"<{mail_id}@{self._domain}>",
            now := self._now(),
            envelope=Envelope("", (address,), b""),
            priority=Priority.URGENT,
            deadline=now,
            guaranteed=False,
            request_id=request.request_id,
            labels=request.labels,
            source=call.source,
            trace=call.trace,
        )
        job.leave_out([result_of(address, suppression)])
        job.is_known = True
        self._lifecycle.submit(job)
        return job
