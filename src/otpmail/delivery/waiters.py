"""Keeps the waiters of each mail in this process: calls that wait for its end, callbacks, watchers of each state."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from otpmail.delivery.job import Job
from otpmail.errors import Unavailable
from otpmail.model import Mail
from otpmail.timers import CallLater, Timer

_TICKS = 64  # a second: a wait ends this early at most
_LONG_SECONDS = 120.0  # beyond which timers without a wait would become too many

T = TypeVar("T")

Outcome = Mail | Unavailable
"""The end of a mail for its waiters: it settled, or the service stopped first."""

DoneCallback = Callable[[Job, Outcome], None]
"""Called once when a job ends. It must not raise."""


class Waiters:
    """The waiters of each job: `_waiting` need the mail, `_callbacks` are only notified, `watchers` see every state.

    A job without any `_waiting` that is not guaranteed is abandoned. One job may have thousands of waiters, so each is
    added and removed at once. Build it inside a running loop, whose `call_later` ends waits unless another is given.
    """

    def __init__(self, *, call_later: CallLater | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._call_later = call_later or self._loop.call_later
        self._waiting: dict[Job, dict[DoneCallback, None]] = {}
        self._callbacks: dict[Job, list[DoneCallback]] = {}
        self._ending: dict[int, tuple[set[asyncio.Future[Mail | None]], Timer]] = {}
        self.watchers: dict[Job, dict[asyncio.Queue[Mail | None], None]] = {}

    def __repr__(self) -> str:
        return f"<Waiters {len(self._waiting)} jobs awaited, {len(self.watchers)} watched>"

    def add_waiter(self, job: Job, callback: DoneCallback) -> None:
        """Add a waiter that needs the mail: `callback` is called at the job's end, unless it is removed before."""
        self._waiting.setdefault(job, {})[callback] = None

    def remove_waiter(self, job: Job, callback: DoneCallback) -> None:
        """Remove a waiter; without effect where the job has ended."""
        _remove(self._waiting, job, callback)

    def add_done_callback(self, job: Job, callback: DoneCallback) -> None:
        """Call `callback` once at the job's end: now, if it has settled."""
        if job.settled:
            callback(job, job.mail)
        else:
            self._callbacks.setdefault(job, []).append(callback)

    def keep(self, job: Job) -> None:
        """Do not let the job be abandoned, although a caller has stopped waiting for it."""
        self.add_waiter(job, _nobody)

    def is_kept(self, job: Job) -> bool:
        """Whether a caller has stopped waiting for the job, with the answer that it goes on."""
        return _nobody in self._waiting.get(job, ())

    def is_abandoned(self, job: Job) -> bool:
        """Whether nobody waits for the job and it is not guaranteed."""
        return not job.guaranteed and job not in self._waiting

    def resolve(self, job: Job, outcome: Outcome) -> None:
        """Call everyone who waits for the job's end, once."""
        if self.watchers and isinstance(outcome, Unavailable):
            for states in self.watchers.get(job, ()):
                states.put_nowait(None)
        waiting = self._waiting.pop(job, {})
        for callback in [*self._callbacks.pop(job), *waiting] if job in self._callbacks else waiting:
            try:
                callback(job, outcome)
            except Exception as error:  # noqa: BLE001  a fault in one callback must not harm those behind it
                context = {"message": "a callback failed at the end of a mail", "exception": error}
                self._loop.call_exception_handler(context)

    async def outcome(self, job: Job, seconds: float) -> Mail | None:
        """Wait as a waiter that needs the mail until the job ends, `seconds` at most, to a 64th of a second.

        Returns the mail as it settled, None if it has not. Raises Unavailable where the service stops first.
        """
        end: asyncio.Future[Mail | None] = self._loop.create_future()
        callback = partial(_set_outcome, end)
        self.add_waiter(job, callback)
        # fast path: one timer for waits that end in the same 64th of a second, 1 us; held to one timer each by
        # tests/delivery/test_waiters.py
        tick = int((self._loop.time() + seconds) * _TICKS)
        ending = self._ending.get(tick)
        if ending is None:
            ending = self._ending[tick] = set(), self._call_later(seconds, self._end_waits, tick)
        ends, timer = ending
        ends.add(end)
        try:
            return await end
        finally:
            ends.discard(end)
            if seconds > _LONG_SECONDS and not ends and self._ending.get(tick) is ending:
                timer.cancel()
                del self._ending[tick]
            if job in self._waiting:  # neither settled nor released
                self.remove_waiter(job, callback)

    def _end_waits(self, tick: int) -> None:
        ends, _ = self._ending.pop(tick)
        for end in ends:
            if not end.done():
                end.set_result(None)

    # Watchers.

    def add_watcher(self, job: Job, states: "asyncio.Queue[Mail | None]") -> None:
        """Put the job's mail into `states` at each change from now on, and None if it goes on in another process."""
        self.watchers.setdefault(job, {})[states] = None

    def remove_watcher(self, job: Job, states: "asyncio.Queue[Mail | None]") -> None:
        """Put nothing into `states` any more."""
        _remove(self.watchers, job, states)

    def show(self, job: Job) -> None:
        """Let the job's watchers see its present state."""
        if job in self.watchers:
            mail = job.mail
            for states in self.watchers[job]:
                states.put_nowait(mail)


def _remove(waiters: dict[Job, dict[T, None]], job: Job, waiter: T) -> None:
    """Remove one waiter of a job, and the job once that was its last."""
    left = waiters.get(job)
    if left is not None:
        left.pop(waiter, None)
        if not left:
            del waiters[job]


def _nobody(_: Job, __: Outcome) -> None:
    """Stand in for a caller that has stopped waiting for a job that goes on."""


def _set_outcome(end: "asyncio.Future[Mail | None]", _: Job, outcome: Outcome) -> None:
    if end.done():  # cancelled
        return
    if isinstance(outcome, Mail):
        end.set_result(outcome)
    else:
        end.set_exception(outcome)
