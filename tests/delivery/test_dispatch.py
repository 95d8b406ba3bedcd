"""The dispatcher: which worker takes the next mail, and that none is left while a worker with room waits."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delivery.fakes import make_job
from otpmail.delivery.dispatch import Dispatcher
from otpmail.delivery.job import Job
from otpmail.delivery.queue import MailQueue
from otpmail.model import Priority
from otpmail.relays.turnaround import STALLED


class Taking:
    """A worker with a load that is set; the jobs it takes go into `taken`, a dash for one that it did not get."""

    def __init__(self, dispatcher: Dispatcher, load: int = 0) -> None:
        self.dispatcher = dispatcher
        self.load = load
        self.woken = 0
        self.taken = ""

    @property
    def busy(self) -> bool:
        """Whether it has jobs in flight."""
        return self.load > 0

    def wake(self) -> None:
        """Count it; taking is for `turn`, since a worker takes in a later step of its own."""
        self.woken += 1

    def wait(self) -> None:
        """Wait for a turn, as a worker with room does that got no job."""
        assert self.dispatcher.take(self) is None
        self.dispatcher.wait(self, busy=self.load > 0)

    def turn(self) -> None:
        """Do what a worker does once it is woken."""
        assert self.woken
        job = self.dispatcher.take(self)
        self.taken += job.id if job is not None else "-"


def _dispatcher() -> Dispatcher:
    return Dispatcher(MailQueue())


async def test_a_turn_that_is_passed_on() -> None:
    """A busy worker takes the job if the idle worker leaves in the same turn of the loop in which the job came."""
    dispatcher = _dispatcher()
    idle, busy = Taking(dispatcher), Taking(dispatcher, 3)
    idle.wait()
    dispatcher.put(make_job("a"))
    assert idle.woken
    assert dispatcher.take(busy) is None
    dispatcher.wait(busy, busy=True)
    assert not busy.woken, "one job wakes one"
    dispatcher.leave(idle)
    busy.turn()
    assert busy.taken == "a"
    dispatcher.pass_on()  # with no job there is no turn to pass on
    assert (idle.woken, busy.woken) == (1, 1)


async def test_idle_workers_go_first() -> None:
    """A few jobs spread: a worker with mails in flight takes none while another has none, woken already or not."""
    dispatcher = _dispatcher()
    busy, idle = Taking(dispatcher, 2), [Taking(dispatcher) for _ in range(2)]
    for worker in (busy, *idle):
        worker.wait()
    for name in "abc":
        dispatcher.put(make_job(name))
    assert [worker.woken for worker in (busy, *idle)] == [0, 1, 0], "one is woken already"
    idle[0].turn()
    idle[0].load = 1
    assert dispatcher.take(idle[0]) is None, "it is for the other idle one"
    idle[1].turn()
    idle[1].load = 1
    dispatcher.pass_on()
    busy.turn()
    assert [worker.taken for worker in (*idle, busy)] == ["a", "b", "c"]


async def test_one_that_becomes_idle_while_it_waits_goes_first() -> None:
    """A worker whose last mail has its answer counts as idle from then on, without taking a turn for it."""
    dispatcher = _dispatcher()
    busy, was_busy = Taking(dispatcher, 1), Taking(dispatcher, 2)
    busy.wait()
    was_busy.wait()
    was_busy.load = 0
    dispatcher.became_idle(was_busy)
    assert repr(dispatcher).startswith("<Dispatcher 1 idle, 1 busy, 0 woken, <MailQueue ")
    dispatcher.put(make_job("a"))
    assert (busy.woken, was_busy.woken) == (0, 1)


async def test_becoming_idle_enlists_nobody() -> None:
    """A worker that does not wait, or whose turn it is, stays where it is."""
    dispatcher = _dispatcher()
    absent, woken = Taking(dispatcher), Taking(dispatcher, 1)
    dispatcher.became_idle(absent)
    woken.wait()
    dispatcher.put(make_job("a"))
    woken.load = 0
    dispatcher.became_idle(woken)
    assert repr(dispatcher).startswith("<Dispatcher 0 idle, 0 busy, 1 woken, ")
    woken.turn()
    assert (woken.taken, woken.woken, absent.woken) == ("a", 1, 0)


async def test_one_that_is_no_further_loaded_takes_all() -> None:
    """A connection whose mails leave together takes several: nobody else is woken for any of them."""
    dispatcher = _dispatcher()
    first, second = Taking(dispatcher), Taking(dispatcher)
    first.wait()
    second.wait()
    for name in "abc":
        dispatcher.put(make_job(name))
    for _ in range(3):
        first.turn()
    assert (first.taken, second.woken) == ("abc", 0)
    dispatcher.put(make_job("d"))
    assert second.woken == 1


async def test_a_job_for_another_wakes_that_one() -> None:
    """A worker with mails in flight gets none where an idle one waits, which is woken if it was not: no job is left."""
    dispatcher = _dispatcher()
    first, second, busy = Taking(dispatcher), Taking(dispatcher), Taking(dispatcher, 1)
    first.wait()
    second.wait()
    dispatcher.put(make_job("a"))
    assert (first.woken, second.woken) == (1, 0)
    first.load = 1
    assert dispatcher.take(busy) is None
    second.turn()
    assert second.taken == "a"


async def test_a_stalled_one_goes_last() -> None:
    """A worker whose mails make no progress takes a job only when nobody else waits for it."""
    dispatcher = _dispatcher()
    stalled, busy = Taking(dispatcher, STALLED + 1), Taking(dispatcher, 9)
    stalled.wait()
    busy.wait()
    dispatcher.put(make_job("a"))
    assert (stalled.woken, busy.woken) == (0, 1)
    assert dispatcher.take(stalled) is None
    dispatcher.wait(stalled, busy=True)
    busy.turn()
    dispatcher.put(make_job("b"))
    stalled.turn()
    assert (busy.taken, stalled.taken) == ("a", "b")


async def test_the_least_loaded_goes_first() -> None:
    """Of workers with mails in flight, the one with the fewest takes the next mail."""
    dispatcher = _dispatcher()
    workers = [Taking(dispatcher, load) for load in (3, 1, 2)]
    for worker in workers:
        worker.wait()
    dispatcher.put(make_job("a"))
    assert [worker.woken for worker in workers] == [0, 1, 0]


async def test_one_that_can_take_no_more_wakes_the_next() -> None:
    """A woken worker that takes only some of the waiting jobs passes its turn on for the rest."""
    dispatcher = _dispatcher()
    waiting = [Taking(dispatcher, load) for load in (1, 2)]
    for worker in waiting:
        worker.wait()
    for name in "ab":
        dispatcher.put(make_job(name))
    waiting[0].turn()
    assert waiting[1].woken == 0, "the first one may take it, too"
    dispatcher.leave(waiting[0])
    waiting[1].turn()
    assert [worker.taken for worker in waiting] == ["a", "b"]


async def test_a_job_that_comes_back_wakes_a_worker() -> None:
    """A job that is put back goes to the front of its lane and wakes one worker, as a new job does."""
    dispatcher = _dispatcher()
    worker = Taking(dispatcher)
    dispatcher.put(make_job("b"))
    dispatcher.put_back(make_job("a"))
    worker.woken = 1
    worker.turn()
    worker.turn()
    worker.wait()
    dispatcher.put_back(make_job("c"))
    assert worker.woken == 2
    worker.turn()
    assert worker.taken == "abc"


async def test_nobody_is_woken_for_a_job_that_is_gone() -> None:
    """A woken worker that finds no job waits anew, and is woken for the next."""
    dispatcher = _dispatcher()
    worker = Taking(dispatcher)
    worker.wait()
    job = make_job("a")
    dispatcher.put(job)
    dispatcher.queue.discard(job)
    worker.turn()
    dispatcher.leave(worker)
    worker.wait()
    dispatcher.put(make_job("b"))
    worker.turn()
    assert (worker.taken, worker.woken) == ("-b", 2)


async def test_one_with_room_for_urgent_jobs_is_woken_for_those_only() -> None:
    """A worker that has room for urgent jobs only gets no other one, and leaves those to workers with room for them."""
    dispatcher = _dispatcher()
    full, busy = Taking(dispatcher, 1), Taking(dispatcher, 2)
    dispatcher.wait_for_urgent(full)
    dispatcher.put(make_job("a"))
    assert not full.woken
    dispatcher.put(make_job("u", priority=Priority.URGENT))
    assert full.woken
    assert (job := dispatcher.take_urgent(full)) is not None
    assert job.id == "u"
    assert dispatcher.take_urgent(full) is None
    dispatcher.leave(full)
    dispatcher.wait_for_urgent(full)
    busy.woken = 1
    busy.turn()
    assert (busy.taken, full.woken) == ("a", 1)


async def test_an_urgent_job_goes_to_the_least_loaded() -> None:
    """Of workers with mails in flight the one with the fewest gets an urgent job, with room for others or not."""
    dispatcher = _dispatcher()
    busy, full, idle = Taking(dispatcher, 3), Taking(dispatcher, 1), Taking(dispatcher)
    busy.wait()
    dispatcher.wait_for_urgent(full)
    dispatcher.put(make_job("u", priority=Priority.URGENT))
    assert (busy.woken, full.woken) == (0, 1)
    assert dispatcher.take_urgent(full) is not None
    dispatcher.wait_for_urgent(full)
    idle.wait()
    dispatcher.put(make_job("v", priority=Priority.URGENT))
    assert (idle.woken, full.woken) == (1, 1)


class Modelled:
    """A worker with a window, as far as the dispatcher sees one. `act` is its step once it is woken.

    `limit` is how many mails may be in flight that are not urgent. `paused` and `urgent_paused` are whether the rate of
    its relay allows no mail now.
    """

    def __init__(self, dispatcher: Dispatcher, window: int) -> None:
        self.dispatcher = dispatcher
        self.window = self.limit = window
        self.paused = self.urgent_paused = False
        self.flying: list[Job] = []
        self.batch_open = False
        self.stalled = False
        self.alive = True
        self.listed = False
        self.must_act = True

    @property
    def busy(self) -> bool:
        """Whether it has jobs in flight."""
        return bool(self.flying)

    @property
    def load(self) -> int:
        """As `Worker.load`."""
        load = 0 if self.batch_open else len(self.flying)
        return load + STALLED if load and self.stalled else load

    def wake(self) -> None:
        """Act in a later step."""
        self.must_act = True

    def act(self) -> None:
        """Take jobs while there is room, then wait for a turn or for room, as `Worker` does."""
        self.must_act = self.listed = False
        while self.has_room or self.has_room_for_urgent:
            all_may_go = self.has_room
            job = self.dispatcher.take(self) if all_may_go else self.dispatcher.take_urgent(self)
            if job is not None:
                assert all_may_go or job.priority is Priority.URGENT
                self.flying.append(job)
            elif all_may_go:
                self.listed = True
                self.dispatcher.wait(self, busy=bool(self.flying))
                return
            else:
                break
        self.dispatcher.leave(self)
        if self.has_room_for_urgent:
            self.dispatcher.wait_for_urgent(self)

    @property
    def has_room(self) -> bool:
        """Whether any mail may be sent now."""
        return self.alive and len(self.flying) < min(self.limit, self.window) and not self.paused

    @property
    def has_room_for_urgent(self) -> bool:
        """Whether an urgent mail may be sent now."""
        return self.alive and len(self.flying) < self.window and not self.urgent_paused

    def answer(self) -> None:
        """Have one mail answered: one that waits for its turn anyway need not act."""
        if self.flying:
            self.flying.pop()
        if not self.listed:
            self.must_act = True
        elif not self.flying:
            self.dispatcher.became_idle(self)

    def lose(self) -> None:
        """Lose the connection: its mails go back, last first."""
        for job in reversed(self.flying):
            self.dispatcher.put_back(job)
        self.flying.clear()
        self.alive = False
        self.must_act = True


class Model:
    """Modelled workers, and what may happen to one of them, in any order."""

    def __init__(self, windows: list[int]) -> None:
        self.dispatcher = _dispatcher()
        self.workers = [Modelled(self.dispatcher, window) for window in windows]
        self.put_ = self.settled = 0
        for worker in self.workers:
            worker.act()

    def put(self, _: Modelled) -> None:
        """A mail is accepted."""
        self.dispatcher.put(make_job(str(self.put_)))
        self.put_ += 1

    def put_urgent(self, _: Modelled) -> None:
        """An urgent mail is accepted."""
        self.dispatcher.put(make_job(str(self.put_), priority=Priority.URGENT))
        self.put_ += 1

    def settle(self, _: Modelled) -> None:
        """A mail settles while it waits."""
        queue = self.dispatcher.queue
        if not queue.empty():
            queue.put_back(job := queue.get_nowait())
            queue.discard(job)
            self.settled += 1

    def act(self, worker: Modelled) -> None:
        """A woken worker has the loop."""
        if worker.must_act:
            worker.act()

    def answer(self, worker: Modelled) -> None:
        """The relay replies about a mail."""
        self.settled += bool(worker.flying)
        worker.answer()

    def lose(self, worker: Modelled) -> None:
        """A connection is lost."""
        worker.lose()

    def renew(self, worker: Modelled) -> None:
        """A worker has a new connection, or looks again for no reason."""
        worker.alive = worker.must_act = True

    def narrow(self, worker: Modelled) -> None:
        """A relay turns slow, so fewer mails may be in flight that are not urgent."""
        worker.limit = 1

    def widen(self, worker: Modelled) -> None:
        """A relay turns quick again, as a reply shows."""
        worker.limit = worker.window
        worker.must_act = worker.must_act or not worker.listed

    def pause(self, worker: Modelled) -> None:
        """The slot for mails is used."""
        worker.paused = True

    def pause_urgent(self, worker: Modelled) -> None:
        """The slots for all mails are used."""
        worker.paused = worker.urgent_paused = True

    def resume_urgent(self, worker: Modelled) -> None:
        """There is a slot for an urgent mail; the worker has set an alarm for that."""
        worker.urgent_paused, worker.must_act = False, True

    def resume(self, worker: Modelled) -> None:
        """There is a slot for any mail; the worker has set an alarm for that."""
        worker.paused = worker.urgent_paused = False
        worker.must_act = True

    def batch(self, worker: Modelled) -> None:
        """A mail may now leave together with those in flight, or may not any more."""
        worker.batch_open = not worker.batch_open

    def stall(self, worker: Modelled) -> None:
        """A worker's mails make no progress, or make progress again."""
        worker.stalled = not worker.stalled


_STEPS = (
    *("put", "put", "put", "put_urgent", "act", "act", "answer", "lose", "renew", "batch", "stall", "settle"),
    *("narrow", "widen", "pause", "pause_urgent", "resume_urgent", "resume"),
)


@settings(max_examples=1000)
@given(
    windows=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    steps=st.lists(st.tuples(st.sampled_from(_STEPS), st.integers(0, 3)), min_size=5, max_size=60),
)
def test_no_job_is_left_while_a_worker_with_room_waits(windows: list[int], steps: list[tuple[str, int]]) -> None:
    """Whatever happens in whatever order, once all woken workers have acted no job waits that a worker has room for.

    A worker may have room for urgent jobs only, by its window or by the rate of its relay.
    """
    model = Model(windows)
    for step, which in steps:
        getattr(model, step)(model.workers[which % len(windows)])
    while acting := [worker for worker in model.workers if worker.must_act]:
        acting[0].act()
    queue = model.dispatcher.queue
    assert queue.empty() or not any(worker.has_room for worker in model.workers)
    assert not (queue.lanes[Priority.URGENT] and any(worker.has_room_for_urgent for worker in model.workers))
    assert repr(model.dispatcher).split(", ")[2] == "0 woken"
    assert model.settled + queue.qsize() + sum(len(worker.flying) for worker in model.workers) == model.put_


@pytest.mark.parametrize("load", [0, 1, STALLED + 1])
def test_a_single_worker_takes_all(load: int) -> None:
    """With nobody else there, load holds no worker back."""
    dispatcher = _dispatcher()
    worker = Taking(dispatcher, load)
    for name in "abc":
        dispatcher.put(make_job(name))
    assert [job.id for _ in range(3) if (job := dispatcher.take(worker))] == ["a", "b", "c"]
