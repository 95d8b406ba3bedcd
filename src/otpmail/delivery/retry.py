"""Retries of mails that the relay deferred (4xx), or whose connection was lost: their schedule, and their timers."""

from collections.abc import Callable

from otpmail import backoff
from otpmail.delivery.job import Job
from otpmail.timers import CallLater, Timer

SCHEDULE = (2.0, 5.0, 15.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Seconds before each retry; the last one repeats.

Short at first, since a code that comes late is worth nothing. Then as RFC 5321, 4.5.4.1 advises for the rest of a day.
Relays with greylisting mostly accept a mail after one minute, some after five.
"""
_JITTER = 0.2


def delay(attempt: int, random: Callable[[], float]) -> float:
    """Seconds to wait after the `attempt`-th attempt (1 is the first), with jitter; `random` gives [0, 1)."""
    return backoff.jittered(SCHEDULE[min(attempt, len(SCHEDULE)) - 1], _JITTER, random)


class Retries:
    """The jobs that wait for their next attempt. `put` gets each when its time has come; `call_later` is the loop's."""

    def __init__(self, put: Callable[[Job], None], *, call_later: CallLater) -> None:
        self._put = put
        self._call_later = call_later
        self.timers: dict[Job, Timer] = {}

    def __repr__(self) -> str:
        return f"<Retries of {len(self.timers)} jobs>"

    def add(self, job: Job, delay: float) -> None:
        """Put the job after `delay` seconds."""
        self.timers[job] = self._call_later(delay, self._due, job)

    def discard(self, job: Job) -> None:
        """Put it no more, if it waits."""
        if job in self.timers:
            self.timers.pop(job).cancel()
            job.next_attempt_time = None

    def _due(self, job: Job) -> None:
        del self.timers[job]
        job.next_attempt_time = None
        self._put(job)
