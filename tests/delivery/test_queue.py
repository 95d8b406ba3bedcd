"""The queue: urgent ahead of normal ahead of bulk, first in first out, and what comes back goes first."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from otpmail.delivery.job import Job
from otpmail.delivery.queue import STALLED, MailQueue
from otpmail.errors import Unavailable
from otpmail.model import Envelope, Mail, MailState, Priority


def _job(name: str, priority: Priority = Priority.NORMAL) -> Job:
    mail = Mail(name, "anonymous", f"<{name}@example.org>", 1.0)
    envelope = Envelope("service@example.org", ("ada@example.org",), b"secret 271828\r\n")
    return Job(mail, envelope, priority, 10.0, guaranteed=False)


def _names(queue: MailQueue) -> str:
    return "".join(queue.get_nowait().mail.id for _ in range(queue.qsize()))


async def test_order() -> None:
    """By priority, and within one by age, whatever order they came in."""
    queue = MailQueue()
    for name, priority in zip("abcdef", [*reversed(Priority), *reversed(Priority)], strict=True):
        queue.put_nowait(_job(name, priority))
    assert queue.qsize() == 6
    assert not queue.empty()
    assert _names(queue) == "cfbead"
    assert queue.empty()
    with pytest.raises(asyncio.QueueEmpty):
        queue.get_nowait()


async def test_what_comes_back_goes_first() -> None:
    """A job that was taken and not sent is at the front of its own lane, and only there."""
    queue = MailQueue()
    for name in "ab":
        queue.put_nowait(_job(name))
    taken = queue.get_nowait()
    queue.put_nowait(_job("u", Priority.URGENT))
    queue.put_back(taken)
    assert _names(queue) == "uab"


async def test_several_come_back_in_their_order() -> None:
    """What was written on a connection that went away goes again as it was, each at the front of its own lane."""
    queue = MailQueue()
    queue.put_nowait(_job("z"))
    queue.put_nowait(_job("v", Priority.URGENT))
    queue.put_back(_job("a"), _job("u", Priority.URGENT), _job("b"))
    assert _names(queue) == "uvabz"


async def test_several_that_come_back_wake_several() -> None:
    """No worker sleeps on while a job is there for it."""
    queue = MailQueue()
    waiting = [asyncio.create_task(queue.get()) for _ in range(2)]
    await asyncio.sleep(0)
    queue.put_back(*(jobs := [_job("a"), _job("b")]))
    assert await asyncio.gather(*waiting) == jobs


async def test_a_job_that_settles_leaves_its_lane() -> None:
    """Wherever it stands; the counts are right at once, and taking out what is not in changes nothing."""
    queue = MailQueue()
    jobs = [_job(name) for name in "abc"]
    for job in jobs:
        queue.put_nowait(job)
    for _ in range(2):
        queue.discard(jobs[1])
        assert queue.qsize() == 2
    queue.discard(_job("d"))
    assert _names(queue) == "ac"
    queue.put_nowait(jobs[1])
    queue.discard(jobs[1])
    assert queue.empty()


class Compared(Job):
    """A job that counts how often it is compared with another one."""

    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return self is other

    __hash__ = Job.__hash__


async def test_settling_looks_at_no_other_job() -> None:
    """With thousands of mails waiting, one that settles costs what it costs with none, in its lane or not."""
    queue = MailQueue()
    waiting = [
        Compared(_job("a").mail, _job("a").envelope, Priority.NORMAL, 1.0, guaranteed=False) for _ in range(1000)
    ]
    for job in waiting:
        queue.put_nowait(job)
    taken = queue.get_nowait()
    Compared.times = 0
    queue.discard(taken)
    queue.discard(waiting[-1])
    assert queue.qsize() == 998
    assert Compared.times < 10


async def test_coming_back_is_for_once() -> None:
    """A job that was put back and is later queued again by the retry schedule stands at the end."""
    queue = MailQueue()
    queue.put_nowait(_job("a"))
    queue.put_back(taken := _job("b"))
    assert queue.get_nowait() is taken
    queue.put_nowait(taken)
    assert _names(queue) == "ab"


@pytest.mark.parametrize("back", [True, False])
async def test_whoever_waits_is_woken(back: bool) -> None:  # noqa: FBT001
    """A worker that waits gets the job at once, new or put back."""
    queue = MailQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    job = _job("a")
    (queue.put_back if back else queue.put_nowait)(job)
    assert await waiting is job


async def test_a_cancelled_wait_loses_nothing() -> None:
    """A worker that stops waiting at the very moment a job comes leaves it for the next."""
    queue = MailQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.put_nowait(_job("a"))
    waiting.cancel()
    outcome = (await asyncio.gather(waiting, return_exceptions=True))[0]
    assert queue.qsize() + isinstance(outcome, Job) == 1


async def test_reprs_are_counts_and_states() -> None:
    """Neither repr shows what a mail says or whom it goes to."""
    queue = MailQueue()
    queue.put_nowait(_job("a", Priority.URGENT))
    assert repr(queue) == "<MailQueue 1 urgent, 0 normal, 0 bulk>"
    assert repr(_job("a")) == "<Job a QUEUED NORMAL 1 pending>"


async def test_a_finished_job_has_its_mail() -> None:
    """What a repeated request finds once the mail has settled: the end, at once."""
    mail = replace(_job("a").mail, state=MailState.RELAYED)
    job = Job.finished(mail)
    assert job.settled
    assert await job.end(asyncio.get_running_loop()) is mail


async def test_each_who_waits_has_an_end_of_his_own() -> None:
    """One who stops waiting takes nothing from the others, and an end is told once."""
    job, loop = _job("a"), asyncio.get_running_loop()
    stays, leaves = job.end(loop), job.end(loop)
    leaves.cancel()
    mail = job.report(MailState.RELAYED, job.known, 2.0)
    job.tell(mail)
    job.tell(Unavailable("too late"))
    assert await stays is mail
    assert leaves.cancelled()


async def test_whoever_waits_hears_that_the_service_stops() -> None:
    """As Unavailable; one who does not look has left no error behind."""
    job, loop = _job("a"), asyncio.get_running_loop()
    looks, _looks_away = job.end(loop), job.end(loop)
    job.tell(Unavailable("stopping"))
    with pytest.raises(Unavailable):
        await looks


async def test_a_job_is_given_up_when_nobody_waits_and_nobody_was_promised() -> None:
    """A promise or a caller each keep it alive."""
    job = _job("a")
    assert job.abandoned
    job.callers = 1
    assert not job.abandoned
    job.callers = 0
    job.guaranteed = True
    assert not job.abandoned


async def test_watchers_see_each_change() -> None:
    """Every watcher gets every state, in order."""
    job = _job("a")
    job.watchers = (asyncio.Queue(), asyncio.Queue())
    states = [MailState.SENDING, MailState.QUEUED, MailState.RELAYED]
    for state in states:
        job.change(state)
    for watcher in job.watchers:
        assert [watcher.get_nowait().state for _ in states] == states
    assert job.mail.state is MailState.RELAYED


class Taking:
    """A taker with a load that is set; what it takes goes into `taken`, a dash for a job that it did not get."""

    def __init__(self, queue: MailQueue, load: int = 0) -> None:
        self.queue = queue
        self.load = load
        self.woken = 0
        self.taken = ""

    def wake(self) -> None:
        """Count it; taking is for `turn`, as a worker takes in a later step of its own."""
        self.woken += 1

    def wait(self) -> None:
        """Wait for a turn, as whoever was refused does."""
        assert self.queue.take_nowait(self) is None
        self.queue.add_waiting(self)

    def turn(self) -> None:
        """Do what a worker does once it is woken."""
        assert self.woken
        self.queue.dismiss(self)
        job = self.queue.take_nowait(self)
        self.taken += job.mail.id if job is not None else "-"


async def test_a_turn_that_is_passed_on() -> None:
    """Where the idle one goes away in the very turn in which a job comes, one that has mails in hand takes it."""
    queue = MailQueue()
    idle, busy = Taking(queue), Taking(queue, 3)
    idle.wait()
    queue.put_nowait(_job("a"))
    assert idle.woken
    assert queue.take_nowait(busy) is None
    queue.add_waiting(busy)
    assert not busy.woken, "one job wakes one"
    queue.dismiss(idle)
    queue.pass_on()
    busy.turn()
    assert busy.taken == "a"
    queue.pass_on()  # with no job there is no turn to pass on
    assert (idle.woken, busy.woken) == (1, 1)


async def test_idle_takers_go_first() -> None:
    """A few jobs spread: one that has mails in hand takes none while another has none, woken already or not."""
    queue = MailQueue()
    busy, idle = Taking(queue, 2), [Taking(queue) for _ in range(2)]
    for taker in (busy, *idle):
        taker.wait()
    for name in "abc":
        queue.put_nowait(_job(name))
    assert [taker.woken for taker in (busy, *idle)] == [0, 1, 0], "one is on its way"
    idle[0].turn()
    idle[0].load = 1
    assert queue.take_nowait(idle[0]) is None, "it is left to the other idle one"
    idle[1].turn()
    idle[1].load = 1
    queue.pass_on()
    busy.turn()
    assert [taker.taken for taker in (*idle, busy)] == ["a", "b", "c"]


async def test_one_that_is_no_further_loaded_takes_all() -> None:
    """As a connection whose mails leave together: nobody else is woken for any of them."""
    queue = MailQueue()
    first, second = Taking(queue), Taking(queue)
    first.wait()
    second.wait()
    for name in "abc":
        queue.put_nowait(_job(name))
    first.turn()
    for _ in range(2):
        job = queue.take_nowait(first)
        assert job is not None
        first.taken += job.mail.id
    assert (first.taken, second.woken) == ("abc", 0)
    queue.put_nowait(_job("d"))
    assert second.woken == 1


async def test_whoever_is_refused_leaves_it_to_one_who_knows() -> None:
    """A taker with mails in hand is refused for an idle one, which is woken if it was not: no job is left lying."""
    queue = MailQueue()
    first, second, busy = Taking(queue), Taking(queue), Taking(queue, 1)
    first.wait()
    second.wait()
    queue.put_nowait(_job("a"))
    assert (first.woken, second.woken) == (1, 0)
    queue.dismiss(first)  # it has something else to do, and does not pass its turn on
    assert queue.take_nowait(busy) is None
    second.turn()
    assert second.taken == "a"


async def test_whoever_stands_goes_last() -> None:
    """One whose mails make no progress takes a job only when nobody else waits for it."""
    queue = MailQueue()
    standing, busy = Taking(queue, STALLED + 1), Taking(queue, 9)
    standing.wait()
    busy.wait()
    queue.put_nowait(_job("a"))
    assert (standing.woken, busy.woken) == (0, 1)
    assert queue.take_nowait(standing) is None
    busy.turn()
    queue.put_nowait(_job("b"))
    standing.turn()
    assert (busy.taken, standing.taken) == ("a", "b")


async def test_one_that_can_take_no_more_wakes_the_next() -> None:
    """Where more jobs are there than the woken one takes, it passes its turn on for the rest."""
    queue = MailQueue()
    waiting = [Taking(queue, load) for load in (1, 2)]
    for taker in waiting:
        taker.wait()
    queue.put_nowait(_job("a"))
    queue._put(_job("b"))  # one that nobody was woken for
    waiting[0].turn()
    assert waiting[1].woken == 0, "the first one may take it, too"
    queue.pass_on()
    waiting[1].turn()
    assert [taker.taken for taker in waiting] == ["a", "b"]


async def test_a_fault_of_one_who_waits_harms_no_other() -> None:
    """The others hear of the end; the fault goes to the loop's handler."""
    job, loop = _job("a"), asyncio.get_running_loop()
    faults: list[str] = []
    loop.set_exception_handler(lambda _, context: faults.append(str(context["exception"])))

    def fail(*_: object) -> None:
        raise RuntimeError("boom")

    job.add_done_callback(fail)
    end = job.end(loop)
    mail = job.report(MailState.RELAYED, job.known, 2.0)
    job.tell(mail)
    assert await end == mail
    assert faults == ["boom"]


@pytest.mark.parametrize("leaves", ["taken", "discarded"])
async def test_enough_until_few_are_left(leaves: str) -> None:
    """Whoever brings jobs is called once, when half of what is enough is left in their lane, however others went."""
    queue, called = MailQueue(enough=4), [0, 0]

    def count() -> None:
        called[0] += 1

    def count_forgotten() -> None:
        called[1] += 1

    jobs = [_job(name) for name in "abcde"]
    for number, job in enumerate(jobs):
        assert queue.is_above_high_water(Priority.NORMAL) == (number == 4)
        queue.put_nowait(job)
    assert not queue.is_above_high_water(Priority.BULK), "each lane is by itself"
    queue.call_below_low_water(Priority.NORMAL, count)
    queue.call_below_low_water(Priority.NORMAL, count)
    queue.call_below_low_water(Priority.NORMAL, count_forgotten)
    queue.forget(Priority.NORMAL, count_forgotten)
    queue.put_nowait(_job("u", Priority.URGENT))
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


async def test_one_who_brings_for_each_that_leaves() -> None:
    """In the order in which they began to wait: of a hundred at once each would bring many."""
    queue, called = MailQueue(enough=4), ""

    def teller(name: str) -> Callable[[], None]:
        def tell() -> None:
            nonlocal called
            called += name

        return tell

    for name in "abcd":
        queue.put_nowait(_job(name))
        queue.call_below_low_water(Priority.NORMAL, teller(name))
    for expected in ("", "a", "ab", "abc"):
        queue.get_nowait()
        assert called == expected


async def test_a_queue_that_never_has_enough() -> None:
    """Unless it is told what that is."""
    queue = MailQueue()
    for number in range(100):
        queue.put_nowait(_job(str(number)))
    assert not queue.is_above_high_water(Priority.NORMAL)
