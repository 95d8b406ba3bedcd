"""Deadlines on a clock that the test moves."""

import asyncio

import pytest

from delivery.test_lifecycle import Clock
from otpmail.delivery.deadlines import Deadlines
from otpmail.delivery.job import Job
from otpmail.model import Envelope, Mail, Priority


class DeliveryHandler:
    """Deadlines, and the jobs whose time is over."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.over: list[Job] = []
        self.deadlines = Deadlines(self.over.append)
        self.deadlines._loop = self.clock  # type: ignore[assignment]

    def add(self, seconds: float) -> Job:
        """A job that has so many seconds."""
        envelope = Envelope("service@example.org", ("ada@example.org",), b"")
        mail = Mail("m", "anonymous", "<m@example.org>", 1.0)
        job = Job(mail, envelope, Priority.NORMAL, self.clock.now + seconds, guaranteed=True)
        self.deadlines.add(job)
        return job


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.0625, 0.99, 86400.03])
async def test_never_early_and_hardly_late(seconds: float) -> None:
    """A job is told of at its deadline, or within a sixteenth of a second behind it."""
    desk = DeliveryHandler()
    job = desk.add(seconds)
    desk.clock.advance(seconds - 0.001)
    assert desk.over == []
    desk.clock.advance(0.001 + 1 / 16)
    assert desk.over == [job]
    assert repr(desk.deadlines) == "<Deadlines 0 jobs, 0 timers>"


async def test_jobs_that_fall_together_share_a_timer() -> None:
    """They are told of in the order they came; those that were discarded are not, and take their timer with them."""
    desk = DeliveryHandler()
    jobs = [desk.add(10 - place / 1000) for place in range(5)]
    alone = desk.add(20)
    assert repr(desk.deadlines) == "<Deadlines 6 jobs, 2 timers>"
    desk.deadlines.discard(jobs[2])
    desk.deadlines.discard(jobs[2])
    desk.deadlines.discard(alone)
    assert repr(desk.deadlines) == "<Deadlines 4 jobs, 1 timers>"
    desk.clock.advance(100)
    assert desk.over == [jobs[0], jobs[1], jobs[3], jobs[4]]
    desk.deadlines.discard(jobs[0])


async def test_a_fault_over_one_job_keeps_no_other_waiting() -> None:
    """It is told to the loop's handler, and each of the others is told of."""
    loop = asyncio.get_running_loop()
    told: list[Job] = []
    faults: list[str] = []
    done = asyncio.Event()

    def over(job: Job) -> None:
        if job is jobs[0]:
            raise RuntimeError("boom")
        told.append(job)
        if job is jobs[-1]:
            done.set()

    loop.set_exception_handler(lambda _, context: faults.append(str(context["exception"])))
    deadlines = Deadlines(over)
    envelope = Envelope("service@example.org", ("ada@example.org",), b"")
    mail = Mail("m", "anonymous", "<m@example.org>", 1.0)
    jobs = [Job(mail, envelope, Priority.NORMAL, loop.time(), guaranteed=True) for _ in range(3)]
    for job in jobs:
        deadlines.add(job)
    await done.wait()
    assert (told, faults) == (jobs[1:], ["boom"])


async def test_what_is_over_may_be_discarded_by_who_is_told() -> None:
    """As the delivery does with each, while others of the same moment have not been told of."""
    loop = asyncio.get_running_loop()
    told: list[Job] = []
    done = asyncio.Event()

    def over(job: Job) -> None:
        told.append(job)
        deadlines.discard(job)
        if len(told) == len(jobs):
            done.set()

    deadlines = Deadlines(over)
    envelope = Envelope("service@example.org", ("ada@example.org",), b"")
    mail = Mail("m", "anonymous", "<m@example.org>", 1.0)
    jobs = [Job(mail, envelope, Priority.NORMAL, loop.time(), guaranteed=True) for _ in range(3)]
    for job in jobs:
        deadlines.add(job)
    await done.wait()
    assert told == jobs
