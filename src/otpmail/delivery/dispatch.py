"""Decides which worker takes the next mail: the only place that does.

A worker whose connection is idle goes first, so a few mails spread over all connections. Mails that come in one turn of
the loop leave together over one connection, as far as its relay answers quickly (`RelayProtocol.load`). When all are
busy, every worker takes as much as its connection has room for. A worker whose mails are stalled goes last: no mail
waits behind a slow one while another connection is open.
"""

from itertools import chain
from math import inf
from typing import Protocol

from otpmail.delivery.job import Job
from otpmail.delivery.queue import MailQueue
from otpmail.model import Priority
from otpmail.relays.turnaround import STALLED


class Taker(Protocol):
    """A worker as the dispatcher sees it."""

    @property
    def busy(self) -> bool:
        """Whether it has mails in flight: otherwise its load is 0."""

    @property
    def load(self) -> int:
        """How many mails it has in flight that the next one would wait for; from STALLED on if they are stalled."""

    def wake(self) -> None:
        """Called when it is its turn: it calls `take` then, or `leave`. No other worker is woken for that job."""


class Sleeper(Protocol):
    """A worker without a connection, as the dispatcher sees it."""

    def wake(self) -> None:
        """Called when a mail finds no idle connection."""


class Dispatcher:
    """Gives the turn to one worker after the other.

    Its whole state is the queue and five sets of workers. `_idle` and `_busy` wait, with nothing and with something in
    flight. `_full` wait, and have room for urgent mails only. `_woken` have their turn. `_resting` have no connection
    while there is nothing to send.
    """

    def __init__(self, queue: MailQueue) -> None:
        self.queue = queue
        self._idle: dict[Taker, None] = {}
        self._busy: dict[Taker, None] = {}
        self._full: dict[Taker, None] = {}
        self._woken: dict[Taker, None] = {}
        self._resting: dict[Sleeper, None] = {}

    def __repr__(self) -> str:
        return f"<Dispatcher {len(self._idle)} idle, {len(self._busy)} busy, {len(self._woken)} woken, {self.queue!r}>"

    # Jobs in.

    def put(self, job: Job) -> None:
        """Put a job into its lane, and wake the worker with the least load, unless one is woken already."""
        self.queue.put_nowait(job)
        if not self._woken:
            self._give_turn(inf)

    def put_back(self, job: Job) -> None:
        """Put a job that was taken but not sent at the front of its lane, and wake a worker as `put` does."""
        self.queue.put_back(job)
        if not self._woken:
            self._give_turn(inf)

    # Workers.

    def take(self, worker: Taker) -> Job | None:
        """Return the next job for a worker whose connection has room for it.

        None: no job waits, or the next one is for another worker, which has the turn then.
        """
        self._woken.pop(worker, None)
        self._idle.pop(worker, None)
        self._busy.pop(worker, None)
        if self._full:
            self._full.pop(worker, None)
        urgent, normal, bulk = self.queue.lanes
        if not (urgent or normal or bulk):
            return None
        # fast path: the load of a worker that is not busy is not asked for, 0.2 us; held to the full path by
        # tests/delivery/test_dispatch.py
        if worker.busy and (self._idle or self._busy or self._woken):
            load = worker.load
            if load and self._is_for_another(load):
                return None
        return self.queue.take()

    def take_urgent(self, worker: Taker) -> Job | None:
        """Return the next job if it is urgent, for a worker whose connection has room for such a one only."""
        self._woken.pop(worker, None)
        self._full.pop(worker, None)
        return self.queue.take() if self.queue.lanes[Priority.URGENT] else None

    def wait_for_urgent(self, worker: Taker) -> None:
        """Wake this worker when it is its turn to take an urgent job: `take_urgent` has just returned None to it."""
        self._full[worker] = None

    def wait(self, worker: Taker, *, busy: bool) -> None:
        """Wake this worker when it is its turn: it has room, and `take` has just returned None to it."""
        (self._busy if busy else self._idle)[worker] = None

    def became_idle(self, worker: Taker) -> None:
        """The last mail in flight of this worker has its answer."""
        if worker in self._busy:
            del self._busy[worker]
            self._idle[worker] = None

    def leave(self, worker: Taker) -> None:
        """Wake this worker no more. If it was its turn, another worker has it now."""
        self._woken.pop(worker, None)
        self._idle.pop(worker, None)
        self._busy.pop(worker, None)
        self._full.pop(worker, None)
        self.pass_on()

    def rest(self, sleeper: Sleeper) -> None:
        """Wake this one when a mail finds no idle connection, so that its worker dials one."""
        self._resting[sleeper] = None

    def end_rest(self, sleeper: Sleeper) -> None:
        """Wake it no more."""
        self._resting.pop(sleeper, None)

    def pass_on(self) -> None:
        """Wake another worker, if a job waits: the one that took the last has no room for more."""
        if not self.queue.empty():
            self._give_turn(inf)

    # The decision.

    def _is_for_another(self, load: int) -> bool:
        """Return whether the next job is for another worker than one with this load; that one has the turn then."""
        below = STALLED if load >= STALLED else 1
        for worker in self._woken:
            if worker.load < below:
                return True
        return self._give_turn(below)

    def _give_turn(self, below: float) -> bool:
        """Wake, of the workers that wait, the one with the least load, if that is less than `below`."""
        least = next(iter(self._idle), None)
        if least is None:
            if self._resting:
                self._resting.popitem()[0].wake()
            full = self._full if self.queue.lanes[Priority.URGENT] else ()
            for worker in chain(self._busy, full):
                if (load := worker.load) < below:
                    least, below = worker, load
                    if not load:
                        break
        if least is None:
            return False
        self._idle.pop(least, None)
        self._busy.pop(least, None)
        self._full.pop(least, None)
        self._woken[least] = None
        least.wake()
        return True
