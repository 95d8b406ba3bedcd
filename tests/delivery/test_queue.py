"""The queue: urgent ahead of normal ahead of bulk, first in first out, and an asyncio.Queue in all else."""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from delivery.fakes import make_job
from otpmail.delivery.job import Job
from otpmail.delivery.queue import MailQueue
from otpmail.model import Envelope, Priority


def _names(queue: MailQueue) -> str:
    return "".join(queue.get_nowait().id for _ in range(queue.qsize()))


async def test_order() -> None:
    """Jobs leave by priority, and within one by age, whatever order they came in."""
    queue = MailQueue()
    for name, priority in zip("abcdef", [*reversed(Priority), *reversed(Priority)], strict=True):
        queue.put_nowait(make_job(name, priority=priority))
    assert queue.qsize() == 6
    assert not queue.empty()
    assert _names(queue) == "cfbead"
    assert queue.empty()
    with pytest.raises(asyncio.QueueEmpty):
        queue.get_nowait()


async def test_taking_is_getting() -> None:
    """`take` returns the jobs that `get_nowait` does, in the same order, and calls producers back as that does."""
    queues = [MailQueue(high_water=4), MailQueue(high_water=4)]
    calls: list[int] = []
    for place, queue in enumerate(queues):
        for name, priority in zip("abcdef", [*reversed(Priority), *reversed(Priority)], strict=True):
            queue.put_nowait(make_job(name, priority=priority))
        queue.call_below_low_water(Priority.BULK, partial(calls.append, place))
    got, taken = queues
    assert [got.get_nowait().id for _ in range(6)] == [taken.take().id for _ in range(6)]
    assert calls == [0, 1]
    for queue in queues:
        with pytest.raises(asyncio.QueueEmpty):
            queue.take()


async def test_it_is_never_full() -> None:
    """The queue is not bounded, and `put` never waits: admission limits how many mails there are."""
    queue = MailQueue(high_water=2)
    for number in range(100):
        await asyncio.wait_for(queue.put(make_job(str(number))), 20)
    assert (queue.qsize(), queue.maxsize, queue.full()) == (100, 0, False)


async def test_what_comes_back_goes_first() -> None:
    """A job that was taken but not sent is at the front of its own lane, and only there."""
    queue = MailQueue()
    for name in "ab":
        queue.put_nowait(make_job(name))
    taken = queue.get_nowait()
    queue.put_nowait(make_job("u", priority=Priority.URGENT))
    queue.put_back(taken)
    assert _names(queue) == "uab"


async def test_several_come_back_in_their_order() -> None:
    """A lost connection gives its mails back last first, so they go again in the order they had."""
    queue = MailQueue()
    queue.put_nowait(make_job("z"))
    queue.put_nowait(make_job("v", priority=Priority.URGENT))
    for job in (make_job("b"), make_job("u", priority=Priority.URGENT), make_job("a")):
        queue.put_back(job)
    assert _names(queue) == "uvabz"


async def test_coming_back_is_for_once() -> None:
    """A job that was put back and is later queued again by the retry schedule stands at the end."""
    queue = MailQueue()
    queue.put_nowait(make_job("a"))
    queue.put_back(taken := make_job("b"))
    assert queue.get_nowait() is taken
    queue.put_nowait(taken)
    assert _names(queue) == "ab"


@pytest.mark.parametrize("back", [True, False])
async def test_get_waits_for_a_job(back: bool) -> None:  # noqa: FBT001
    """A waiting `get` returns a job at once when it is put or put back."""
    queue = MailQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    job = make_job("a")
    (queue.put_back if back else queue.put_nowait)(job)
    assert await waiting is job


async def test_several_jobs_wake_several() -> None:
    """Each job that is put, or put back, wakes one waiting `get`."""
    queue = MailQueue()
    waiting = [asyncio.create_task(queue.get()) for _ in range(2)]
    await asyncio.sleep(0)
    jobs = [make_job("a"), make_job("b")]
    for job in reversed(jobs):
        queue.put_back(job)
    assert await asyncio.gather(*waiting) == jobs


async def test_a_cancelled_get_loses_nothing() -> None:
    """A `get` that is cancelled at the very moment a job comes leaves the job for the next `get`."""
    queue = MailQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.put_nowait(make_job("a"))
    waiting.cancel()
    outcome = (await asyncio.gather(waiting, return_exceptions=True))[0]
    assert queue.qsize() + isinstance(outcome, Job) == 1


async def test_join_waits_for_every_job() -> None:
    """A job is done when `task_done` is called for it, or when it settled while it waited; one put back counts anew."""
    queue = MailQueue()
    await queue.join()
    settles, sent = make_job("a"), make_job("b")
    queue.put_nowait(settles)
    queue.put_nowait(sent)
    joining = asyncio.create_task(queue.join())
    queue.discard(settles)
    assert queue.get_nowait() is sent
    queue.put_back(sent)
    queue.task_done()
    await asyncio.sleep(0)
    assert not joining.done()
    assert queue.get_nowait() is sent
    queue.discard(sent)
    await asyncio.sleep(0)
    assert not joining.done(), "it was taken, so discarding it is nothing"
    queue.task_done()
    await joining
    with pytest.raises(ValueError, match="too many"):
        queue.task_done()


async def test_a_job_that_settles_leaves_its_lane() -> None:
    """`discard` takes a waiting job out of its lane at once, wherever it stands, and ignores any other job."""
    queue = MailQueue()
    jobs = [make_job(name) for name in "abc"]
    for job in jobs:
        queue.put_nowait(job)
    for _ in range(2):
        queue.discard(jobs[1])
        assert queue.qsize() == 2
    queue.discard(make_job("d"))
    assert _names(queue) == "ac"
    queue.put_nowait(jobs[1])
    queue.discard(jobs[1])
    assert queue.empty()


class Compared(Job):
    """A job that counts how often any of its kind is compared with another."""

    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return self is other

    __hash__ = Job.__hash__


async def test_settling_looks_at_no_other_job() -> None:
    """With thousands of mails waiting, one that settles costs the same as with none, in its lane or not."""
    queue = MailQueue()
    envelope = Envelope("service@example.org", ("ada@x.org",), b"")
    waiting = [
        Compared("a", "shop", "", 1.0, envelope=envelope, priority=Priority.NORMAL, deadline=1.0, guaranteed=False)
        for _ in range(1000)
    ]
    for job in waiting:
        queue.put_nowait(job)
    taken = queue.get_nowait()
    Compared.times = 0
    queue.discard(taken)
    queue.discard(waiting[-1])
    assert queue.qsize() == 998
    assert Compared.times < 10


async def test_reprs_are_counts() -> None:
    """Neither the repr nor the string of the queue shows a job, and both work while jobs wait."""
    queue = MailQueue()
    queue.put_nowait(make_job("secret", priority=Priority.URGENT))
    assert repr(queue) == str(queue) == "<MailQueue 1 urgent, 0 normal, 0 bulk>"
    assert queue.waiting() == {"urgent": 1, "normal": 0, "bulk": 0}


@pytest.mark.parametrize("leaves", ["taken", "discarded"])
async def test_high_and_low_water(leaves: str) -> None:
    """A producer is called once, when half of the high-water mark is left in its lane, however the others went."""
    queue, called = MailQueue(high_water=4), [0, 0]

    def count() -> None:
        called[0] += 1

    def count_forgotten() -> None:
        called[1] += 1

    jobs = [make_job(name) for name in "abcde"]
    for number, job in enumerate(jobs):
        assert queue.is_above_high_water(Priority.NORMAL) == (number == 4)
        queue.put_nowait(job)
    assert not queue.is_above_high_water(Priority.BULK), "each lane is by itself"
    queue.call_below_low_water(Priority.NORMAL, count)
    queue.call_below_low_water(Priority.NORMAL, count)
    queue.call_below_low_water(Priority.NORMAL, count_forgotten)
    queue.forget(Priority.NORMAL, count_forgotten)
    queue.put_nowait(make_job("u", priority=Priority.URGENT))
    queue.get_nowait()
    for job in jobs[:3]:
        assert called == [0, 0]
        if leaves == "taken":
            queue.get_nowait()
        else:
            queue.discard(job)
    assert called == [1, 0]
    queue.get_nowait()
    assert called == [1, 0]


async def test_one_producer_for_each_job_that_leaves() -> None:
    """Producers are called in the order in which they began to wait: a hundred at once would each put many."""
    queue, called = MailQueue(high_water=4), ""

    def noting(name: str) -> Callable[[], None]:
        def note() -> None:
            nonlocal called
            called += name

        return note

    for name in "abcd":
        queue.put_nowait(make_job(name))
        queue.call_below_low_water(Priority.NORMAL, noting(name))
    for expected in ("", "a", "ab", "abc"):
        queue.get_nowait()
        assert called == expected


async def test_without_a_high_water_mark() -> None:
    """Unless a mark is given, no number of jobs reaches it."""
    queue = MailQueue()
    for number in range(100):
        queue.put_nowait(make_job(str(number)))
    assert not queue.is_above_high_water(Priority.NORMAL)


def _put(queue: MailQueue, *names: str, priority: Priority = Priority.NORMAL) -> list[Job]:
    """Put jobs of the source in the first letter of their names."""
    jobs = [make_job(name, priority=priority, source=name[0]) for name in names]
    for job in jobs:
        queue.put_nowait(job)
    return jobs


def _ids(queue: MailQueue) -> list[str]:
    return [queue.get_nowait().id for _ in range(queue.qsize())]


async def test_callers_take_turns() -> None:
    """Within a lane one job of each caller leaves after the other, each caller's own in their order."""
    queue = MailQueue()
    _put(queue, "a1", "a2", "a3", "b1", "c1", "c2")
    assert _ids(queue) == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert queue.empty()


async def test_a_caller_with_one_mail_waits_for_one_of_each_other() -> None:
    """A mail waits for at most one mail of each other caller, however many these have."""
    queue = MailQueue()
    _put(queue, *(f"a{number}" for number in range(1000)))
    queue.get_nowait()
    _put(queue, "b1")
    assert [queue.get_nowait().id for _ in range(2)] == ["a1", "b1"]


async def test_lanes_come_before_turns() -> None:
    """An urgent mail leaves before the others, whosever turn it is."""
    queue = MailQueue()
    _put(queue, "b1", "c1")
    _put(queue, "a1", "a2", priority=Priority.URGENT)
    assert _ids(queue) == ["a1", "a2", "b1", "c1"]


async def test_deferred_mails_share_one_turn() -> None:
    """Retries of all callers take turns with fresh mails as if they were one caller's."""
    queue = MailQueue()
    retries = [make_job(f"r{number}", source=f"caller-{number}") for number in range(100)]
    for job in retries:
        job.defer()
        queue.put_nowait(job)
    _put(queue, "a1", "a2")
    assert [queue.get_nowait().id for _ in range(5)] == ["r0", "a1", "r1", "a2", "r2"]


async def test_what_comes_back_has_the_next_turn() -> None:
    """A job that was taken but not sent goes first, whosever turn it is, and its caller has had its turn then."""
    queue = MailQueue()
    _put(queue, "a1", "a2", "b1", "c1")
    taken = queue.get_nowait()
    queue.put_back(taken)
    assert _ids(queue) == ["a1", "b1", "c1", "a2"]


async def test_a_caller_whose_jobs_have_settled_has_no_turn() -> None:
    """Discarding a caller's last job gives the next caller the turn, and the count of the lane is right."""
    queue = MailQueue()
    a1, a2, _ = _put(queue, "a1", "a2", "b1")
    queue.discard(a1)
    queue.discard(a2)
    assert queue.waiting() == {"urgent": 0, "normal": 1, "bulk": 0}
    assert _ids(queue) == ["b1"]
