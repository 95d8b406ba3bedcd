"""Deadlines on a clock that the test moves."""

import asyncio

import pytest

from delivery.fakes import Clock, make_job
from otpmail.delivery.deadlines import Deadlines
from otpmail.delivery.job import Job


class Rig:
    """Deadlines, their clock, and the jobs that have expired."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.expired: list[Job] = []
        self.deadlines = Deadlines(self.on_expired, now=self.clock.now, call_later=self.clock.call_later)
        self.faulty: Job | None = None
        self.discards = False

    def on_expired(self, job: Job) -> None:
        """Keep the job. A faulty one raises, and with `discards` it is discarded as the lifecycle does."""
        if job is self.faulty:
            raise RuntimeError("boom")
        if self.discards:
            self.deadlines.discard(job)
        self.expired.append(job)

    def add(self, seconds: float) -> Job:
        """Return a job that has so many seconds."""
        job = make_job(deadline=self.clock.time + seconds)
        self.deadlines.add(job)
        return job


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.0625, 0.99, 86400.03])
async def test_never_early_and_hardly_late(seconds: float) -> None:
    """A job expires at its deadline, or within a sixteenth of a second after it."""
    rig = Rig()
    job = rig.add(seconds)
    rig.clock.advance(seconds - 0.001)
    assert rig.expired == []
    rig.clock.advance(0.001 + 1 / 16)
    assert rig.expired == [job]
    assert repr(rig.deadlines) == "<Deadlines 0 jobs, 0 timers>"


async def test_a_deadline_that_has_passed_expires_at_once() -> None:
    """A mail may arrive from the store after its deadline: its timer is not set in the past."""
    rig = Rig()
    job = rig.add(-3600)
    assert rig.expired == [], "the one who adds it may not be ready yet"
    rig.clock.advance(0)
    assert rig.expired == [job]


async def test_jobs_that_fall_together_share_a_timer() -> None:
    """Jobs that share a timer expire in the order they came, and discarding the last of them cancels the timer."""
    rig = Rig()
    jobs = [rig.add(10 - place / 1000) for place in range(5)]
    alone = rig.add(20)
    assert repr(rig.deadlines) == "<Deadlines 6 jobs, 2 timers>"
    rig.deadlines.discard(jobs[2])
    rig.deadlines.discard(jobs[2])
    rig.deadlines.discard(alone)
    assert repr(rig.deadlines) == "<Deadlines 4 jobs, 1 timers>"
    rig.clock.advance(100)
    assert rig.expired == [jobs[0], jobs[1], jobs[3], jobs[4]]
    rig.deadlines.discard(jobs[0])


async def test_a_fault_over_one_job_keeps_no_other_waiting() -> None:
    """The fault goes to the loop's handler, and each of the other jobs expires."""
    faults: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(str(context["exception"])))
    rig = Rig()
    jobs = [rig.add(1) for _ in range(3)]
    rig.faulty = jobs[0]
    rig.clock.advance(2)
    assert (rig.expired, faults) == (jobs[1:], ["boom"])


async def test_the_callback_may_discard_its_job() -> None:
    """The callback may discard its job, as the lifecycle does, while other jobs of the same moment are still due."""
    rig = Rig()
    rig.discards = True
    jobs = [rig.add(1) for _ in range(3)]
    rig.clock.advance(2)
    assert rig.expired == jobs


async def test_on_the_loop() -> None:
    """Without `call_later` the timers are the running loop's."""
    loop = asyncio.get_running_loop()
    expired: asyncio.Queue[Job] = asyncio.Queue()
    deadlines = Deadlines(expired.put_nowait, now=loop.time)
    deadlines.add(job := make_job(deadline=loop.time()))
    assert await expired.get() is job
