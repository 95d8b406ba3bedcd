"""The deadlines of the jobs that have not settled: one timer for those that fall together, not one for each job."""

import asyncio
from collections.abc import Callable
from math import ceil

from otpmail.delivery.job import Job
from otpmail.timers import CallLater, Timer

_TICKS = 16  # a second: a deadline is noticed this late at most


class Deadlines:
    """Calls `expired` with each job whose deadline has passed, a sixteenth of a second late at most.

    Nearly every mail settles in time: a timer that is set for each, and cancelled, would be work for nothing. `now` is
    the clock of the deadlines, in seconds; `call_later` sets a timer, the running loop's unless given.
    """

    def __init__(
        self, expired: Callable[[Job], None], *, now: Callable[[], float], call_later: CallLater | None = None
    ) -> None:
        self._expired = expired
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._call_later = call_later or self._loop.call_later
        self._due: dict[int, tuple[dict[Job, None], Timer]] = {}

    def __repr__(self) -> str:
        return f"<Deadlines {sum(len(jobs) for jobs, _ in self._due.values())} jobs, {len(self._due)} timers>"

    def add(self, job: Job) -> None:
        """Watch the job's deadline, which must not change from now on."""
        tick = ceil(job.deadline * _TICKS)
        due = self._due.get(tick)
        if due is None:
            timer = self._call_later(max(0.0, tick / _TICKS - self._now()), self._ring, tick)
            due = self._due[tick] = {}, timer
        due[0][job] = None

    def discard(self, job: Job) -> None:
        """Watch it no more; without effect where it is not watched."""
        tick = ceil(job.deadline * _TICKS)
        due = self._due.get(tick)
        if due is None:
            return
        jobs, timer = due
        jobs.pop(job, None)
        if not jobs:
            timer.cancel()
            del self._due[tick]

    def _ring(self, tick: int) -> None:
        jobs, _ = self._due.pop(tick)
        for job in jobs:
            try:
                self._expired(job)
            except Exception as error:  # noqa: BLE001  a fault over one job must not keep the others waiting
                self._loop.call_exception_handler({"message": "a job's deadline was missed", "exception": error})
