"""Waiters: each learns of a job's end once, and as long as one needs it the job is not abandoned."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from cost import lines_run
from delivery.fakes import Clock, make_job
from otpmail.delivery.job import Job
from otpmail.delivery.waiters import Outcome, Waiters
from otpmail.errors import Unavailable
from otpmail.model import Mail, MailState


def _settle(job: Job) -> Mail:
    return job.settle(MailState.RELAYED, job.known, 2.0)


class Notes:
    """Callbacks that note their name and how the job ended."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str, Outcome]] = []

    def callback(self, name: str) -> Callable[[Job, Outcome], None]:
        """Return a new callback of that name."""
        return lambda job, outcome: self.ends.append((name, job.id, outcome))


async def test_everyone_learns_of_the_end_once() -> None:
    """Callbacks and waiters get the settled mail once, and nothing that comes after it."""
    waiters, notes, job = Waiters(), Notes(), make_job("a")
    waiters.add_waiter(job, notes.callback("needs"))
    waiters.add_done_callback(job, notes.callback("wants"))
    waiters.add_waiter(job, notes.callback("needs too"))
    mail = _settle(job)
    waiters.resolve(job, mail)
    waiters.resolve(job, Unavailable("too late"))
    assert notes.ends == [("wants", "a", mail), ("needs", "a", mail), ("needs too", "a", mail)]
    assert repr(waiters) == "<Waiters 0 jobs awaited, 0 watched>"


async def test_jobs_are_apart() -> None:
    """The end of one job notifies nobody who waits for another job."""
    waiters, notes, jobs = Waiters(), Notes(), [make_job("a"), make_job("b")]
    for job in jobs:
        waiters.add_waiter(job, notes.callback(f"needs {job.id}"))
    mail = _settle(jobs[0])
    waiters.resolve(jobs[0], mail)
    assert notes.ends == [("needs a", "a", mail)]
    assert repr(waiters) == "<Waiters 1 jobs awaited, 0 watched>"


async def test_a_callback_for_a_settled_job_is_called_now() -> None:
    """A repeated request may find a job that has settled: its end comes at once."""
    waiters, notes, job = Waiters(), Notes(), make_job("a")
    mail = _settle(job)
    waiters.add_done_callback(job, notes.callback("wants"))
    assert notes.ends == [("wants", "a", mail)]


async def test_a_job_is_abandoned_when_nobody_needs_it() -> None:
    """A guarantee or a waiter each keep it alive; a done callback and a watcher do not."""
    waiters, notes = Waiters(), Notes()
    job, guaranteed = make_job("a", guaranteed=False), make_job("b", guaranteed=True)
    needs, needs_too = notes.callback("needs"), notes.callback("needs too")
    waiters.add_done_callback(job, notes.callback("wants"))
    waiters.add_watcher(job, asyncio.Queue())
    assert waiters.is_abandoned(job)
    assert not waiters.is_abandoned(guaranteed)
    waiters.add_waiter(job, needs)
    waiters.add_waiter(job, needs_too)
    waiters.remove_waiter(job, needs)
    assert not waiters.is_abandoned(job)
    waiters.remove_waiter(job, needs_too)
    assert waiters.is_abandoned(job)
    waiters.remove_waiter(job, needs_too)
    waiters.resolve(job, mail := _settle(job))
    assert notes.ends == [("wants", "a", mail)], "those who left learn nothing"


async def test_a_fault_in_one_callback_harms_no_other() -> None:
    """If one callback raises, the others are called all the same, and the loop's handler gets the error."""
    faults: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(str(context["exception"])))
    waiters, notes, job = Waiters(), Notes(), make_job("a")

    def fail(*_: object) -> None:
        raise RuntimeError("boom")

    waiters.add_waiter(job, fail)
    waiters.add_done_callback(job, fail)
    waiters.add_waiter(job, notes.callback("needs"))
    mail = _settle(job)
    waiters.resolve(job, mail)
    assert notes.ends == [("needs", "a", mail)]
    assert faults == ["boom", "boom"]


async def test_each_call_has_an_outcome_of_its_own() -> None:
    """A call that stops waiting takes nothing from the others, and is no waiter any more."""
    waiters, job = Waiters(), make_job("a", guaranteed=False)
    stays, leaves = (asyncio.create_task(waiters.outcome(job, 60.0)) for _ in range(2))
    await asyncio.sleep(0)
    leaves.cancel()
    await asyncio.gather(leaves, return_exceptions=True)
    assert leaves.cancelled()
    assert not waiters.is_abandoned(job)
    mail = _settle(job)
    waiters.resolve(job, mail)
    assert await stays is mail


class Timers:
    """Stands in for the loop's `call_later`; `ring` calls back."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.handles: list[asyncio.Handle] = []
        self._callbacks: list[Callable[[], None]] = []

    def call_later(self, seconds: float, callback: Callable[..., None], *arguments: object) -> asyncio.Handle:
        """Note a timer."""
        self.seconds.append(seconds)
        self._callbacks.append(lambda: callback(*arguments))
        self.handles.append(asyncio.get_running_loop().call_soon(lambda: None))
        return self.handles[-1]

    def ring(self) -> None:
        """Let the first timer go off."""
        self._callbacks.pop(0)()


async def test_a_wait_that_is_over_has_no_outcome() -> None:
    """A wait ends with None after its seconds, and the job is abandoned then unless it is kept."""
    timers = Timers()
    waiters, job = Waiters(call_later=timers.call_later), make_job("a", guaranteed=False)
    waiting = asyncio.create_task(waiters.outcome(job, 7.0))
    await asyncio.sleep(0)
    assert timers.seconds == [7.0]
    timers.ring()
    assert await waiting is None
    assert waiters.is_abandoned(job)
    waiters.keep(job)
    waiters.keep(job)
    assert not waiters.is_abandoned(job)
    assert repr(waiters) == "<Waiters 1 jobs awaited, 0 watched>"
    waiters.resolve(job, _settle(job))
    assert repr(waiters) == "<Waiters 0 jobs awaited, 0 watched>"


async def test_a_timer_ends_the_waits_of_its_moment_alone() -> None:
    """Waits of almost the same moment share a timer; a wait that had its outcome, and a later one, are not ended."""
    timers = Timers()
    waiters, jobs = Waiters(call_later=timers.call_later), [make_job(name) for name in "abcd"]
    waits = [asyncio.create_task(waiters.outcome(job, 7.0)) for job in jobs[:3]]
    later = asyncio.create_task(waiters.outcome(jobs[3], 9.0))
    await asyncio.sleep(0)
    assert timers.seconds in ([7.0, 9.0], [7.0, 7.0, 9.0])  # two where a 64th of a second began between them
    waiters.resolve(jobs[0], mail := _settle(jobs[0]))
    waits[1].cancel()
    await asyncio.gather(*waits[:2], return_exceptions=True)
    for _ in timers.seconds[:-1]:
        timers.ring()
    assert await waits[0] is mail
    assert waits[1].cancelled()
    assert await waits[2] is None
    assert not later.done()
    timers.ring()
    assert await later is None


async def test_no_timer_outlives_a_long_wait() -> None:
    """A timer that is an hour away ends with the last wait for it, so that their number does not grow for an hour."""
    timers, jobs = Timers(), [make_job("a"), make_job("b")]
    waiters = Waiters(call_later=timers.call_later)
    waits = [asyncio.create_task(waiters.outcome(job, 3600.0)) for job in jobs]
    await asyncio.sleep(0)
    waits[0].cancel()
    await asyncio.wait(waits[:1])
    assert not timers.handles[-1].cancelled()
    waiters.resolve(jobs[1], mail := _settle(jobs[1]))
    assert await waits[1] is mail
    assert all(handle.cancelled() for handle in timers.handles)


async def test_a_wait_that_ends_as_the_job_does() -> None:
    """A job that ends in the same turn of the loop as the wait leaves no error and no waiter behind."""
    timers = Timers()
    waiters, job = Waiters(call_later=timers.call_later), make_job("a")
    waiting = asyncio.create_task(waiters.outcome(job, 7.0))
    await asyncio.sleep(0)
    timers.ring()
    waiters.resolve(job, Unavailable("stopping"))
    assert await waiting is None
    assert repr(waiters) == "<Waiters 0 jobs awaited, 0 watched>"


async def test_the_last_call_that_leaves_abandons_the_job() -> None:
    """A job is abandoned once its last waiting call leaves, so the caller of `outcome` may drop it."""
    waiters, job = Waiters(), make_job("a", guaranteed=False)
    waiting = asyncio.create_task(waiters.outcome(job, 60.0))
    await asyncio.sleep(0)
    assert not waiters.is_abandoned(job)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiters.is_abandoned(job)


async def test_a_call_that_is_cancelled_as_the_job_ends() -> None:
    """A call that is cancelled in the same turn of the loop in which its mail settles leaves nothing behind."""
    waiters, job = Waiters(), make_job("a", guaranteed=False)
    waiting = asyncio.create_task(waiters.outcome(job, 60.0))
    await asyncio.sleep(0)
    waiting.cancel()
    waiters.resolve(job, _settle(job))
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    assert repr(waiters) == "<Waiters 0 jobs awaited, 0 watched>"


async def test_calls_learn_that_the_service_stops() -> None:
    """A stop raises Unavailable in each waiting call, and leaves no error behind for one that was cancelled."""
    waiters, job = Waiters(), make_job("a")
    looks, leaves = (asyncio.create_task(waiters.outcome(job, 60.0)) for _ in range(2))
    await asyncio.sleep(0)
    leaves.cancel()
    waiters.resolve(job, Unavailable("stopping"))
    with pytest.raises(Unavailable):
        await looks
    await asyncio.gather(leaves, return_exceptions=True)
    assert leaves.cancelled()


async def test_watchers_see_each_state() -> None:
    """Every watcher gets every state in order from when it began, until it is removed."""
    waiters, job = Waiters(), make_job("a")
    early: asyncio.Queue[Any] = asyncio.Queue()
    late: asyncio.Queue[Any] = asyncio.Queue()
    waiters.add_watcher(job, early)
    for state in (MailState.SENDING, MailState.QUEUED):
        job.state = state
        waiters.show(job)
    waiters.add_watcher(job, late)
    waiters.show(make_job("b"))
    assert repr(waiters) == "<Waiters 0 jobs awaited, 1 watched>"
    _settle(job)
    waiters.show(job)
    waiters.remove_watcher(job, early)
    waiters.show(job)
    waiters.remove_watcher(job, late)
    waiters.remove_watcher(job, late)
    assert waiters.watchers == {}
    waiters.show(job)
    states = [[queue.get_nowait().state.name for _ in range(queue.qsize())] for queue in (early, late)]
    assert states == [["SENDING", "QUEUED", "RELAYED"], ["RELAYED", "RELAYED"]]


async def test_thousands_of_waiters_of_one_job_go_at_once() -> None:
    """Each of many watchers and callers of one job is added and removed in the same small time, in any order."""
    waiters, notes, job = Waiters(), Notes(), make_job("a", guaranteed=False)
    queues: list[asyncio.Queue[Any]] = [asyncio.Queue() for _ in range(6000)]
    callbacks = [notes.callback(str(number)) for number in range(6000)]

    def come_and_go() -> None:
        for queue, callback in zip(queues, callbacks, strict=True):
            waiters.add_watcher(job, queue)
            waiters.add_waiter(job, callback)
        for queue, callback in zip(queues[1:], callbacks[1:], strict=True):
            waiters.remove_watcher(job, queue)
            waiters.remove_waiter(job, callback)

    assert lines_run(come_and_go) < 6000 * 30
    assert not waiters.is_abandoned(job)
    waiters.show(job)
    waiters.resolve(job, _settle(job))
    assert [queue.qsize() for queue in queues[:3]] == [1, 0, 0]
    assert [name for name, _, _ in notes.ends] == ["0"]


@pytest.mark.parametrize("first", ["cancelled", "released", "timed out"])
async def test_no_outcome_is_left_unread(first: str) -> None:
    """A wait that is cancelled, or ends by its time, in the turn in which a stop releases its job logs no error."""
    loop, faults, clock = asyncio.get_running_loop(), list[Any](), Clock()
    loop.set_exception_handler(lambda _, context: faults.append(context))
    try:
        waiters, job = Waiters(call_later=clock.call_later), make_job(guaranteed=False)
        waiting = [asyncio.create_task(waiters.outcome(job, 60)) for _ in range(3)]
        await asyncio.sleep(0)
        if first == "cancelled":
            waiting[0].cancel()
        elif first == "timed out":
            clock.advance(61)
        waiters.resolve(job, Unavailable("the service is stopping"))
        waiting[1].cancel()
        ends = [type(end) for end in await asyncio.gather(*waiting, return_exceptions=True)]
        del waiting
        gc.collect()  # a future that goes with an error that nobody has read calls the handler
        await asyncio.sleep(0)
        assert (
            ends
            == {
                "cancelled": [asyncio.CancelledError, asyncio.CancelledError, Unavailable],
                "released": [Unavailable, asyncio.CancelledError, Unavailable],
                "timed out": [type(None), asyncio.CancelledError, type(None)],
            }[first]
        )
        assert faults == []
    finally:
        loop.set_exception_handler(None)
