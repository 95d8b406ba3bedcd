"""The worker: when it takes a mail, when it changes its connection, and what it leaves behind when it is stopped."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import cast

import pytest

from delivery.fakes import make_job
from otpmail.delivery.detours import Detours
from otpmail.delivery.dispatch import Dispatcher
from otpmail.delivery.job import Job
from otpmail.delivery.queue import MailQueue
from otpmail.delivery.standby import Standby
from otpmail.delivery.worker import Worker
from otpmail.errors import ConnectFailed, ConnectionLost
from otpmail.events import ALL_EVENTS, ConnectionClosed, Event
from otpmail.model import Envelope, Priority, RecipientResult
from otpmail.relays.failover import Failover
from otpmail.relays.turnaround import STALLED
from otpmail.smtp.reply_kind import ReplyKind
from otpmail.smtp.transaction import Callback, Results

TAKEN = (RecipientResult("ada@example.org", 250, "2.0.0", "taken"),)


class ConnectionOwner:
    """The relay of all connections here: it notes every call, and has a rate unless a test says otherwise."""

    name = "relay:25"

    def __init__(self) -> None:
        self.throttle = self
        self.is_limited = True
        self.paused = 0.0
        self.urgent_paused: float | None = None  # as others
        self.slots = self.urgent_slots = 0
        self.is_in_trouble = False
        self.has_place = True
        self.closes_idle = False
        self.standby = 1
        self.refused_: list[ReplyKind] = []
        self.accepted: list[Wire] = []
        self.released_: list[Wire] = []

    def pause(self) -> float:
        """Return the pause that is set."""
        return self.paused

    def urgent_pause(self) -> float:
        """Return the pause that is set for urgent mails, or for all."""
        return self.paused if self.urgent_paused is None else self.urgent_paused

    def take_slot(self, *, urgent: bool) -> None:
        """Count the slot."""
        self.slots += 1
        self.urgent_slots += urgent

    def accepted_mail(self, connection: "Wire") -> None:
        """Keep the connection."""
        self.accepted.append(connection)

    def refused(self, connection: "Wire", kind: ReplyKind) -> None:
        """Keep the kind, and take fewer connections if there are too many."""
        self.refused_.append(kind)
        if kind is ReplyKind.TOO_MANY_CONNECTIONS:
            connection.lost_cause = "one too many"
            connection.on_limit()

    def released(self, connection: "Wire") -> None:
        """Keep the connection."""
        self.released_.append(connection)


class Wire:
    """A connection whose state a test sets, and whose mails it answers."""

    sent = 0
    lost_cause = ""
    most = 1000
    stalled = False
    batch_open = False
    is_near_limit = False
    retire_at = inf
    crossed = False
    parting_kind = ReplyKind.OTHER
    idle_at_end: float | None = None
    is_idle_too_long = False
    begun = 0.0
    on_lost: Callable[[], None]
    on_available: Callable[[], None]
    on_limit: Callable[[], None]

    def __init__(self, owner: ConnectionOwner, window: int = 2) -> None:
        self.owner = owner
        self.window = window
        self.limit: float = inf  # of the mails in flight that are not urgent
        self.flying: list[Callback] = []
        self.carried: list[str] = []
        self.refuses = False
        self._carried_more = asyncio.Event()
        self.closed = asyncio.Event()
        self.succeeded_at: int | None = None
        self._drained = asyncio.Event()

    @property
    def is_available(self) -> bool:
        """Whether it is neither lost nor exhausted, and has room for any mail."""
        return self.takes_urgent and len(self.flying) < self.limit

    @property
    def takes_urgent(self) -> bool:
        """Whether it is neither lost nor exhausted, and its window has room."""
        return len(self.flying) < self.window and not (self.lost_cause or self.is_exhausted)

    @property
    def is_exhausted(self) -> bool:
        """Whether it has carried `most` mails."""
        return len(self.carried) >= self.most

    @property
    def flights(self) -> list[Callback]:
        """The mails in flight."""
        return self.flying

    @property
    def in_flight(self) -> int:
        """How many mails are in flight."""
        return len(self.flying)

    def load(self) -> int:
        """How many mails in flight one more would wait for, STALLED more if they stall."""
        return 0 if self.batch_open else len(self.flying) + STALLED * self.stalled

    @property
    def in_flight_limit(self) -> int:
        """How many mails may be in flight: as many as the window has."""
        return self.window

    def watch(
        self, *, on_lost: Callable[[], None], on_available: Callable[[], None], on_limit: Callable[[], None]
    ) -> None:
        """Keep the callbacks."""
        self.on_lost, self.on_available, self.on_limit = on_lost, on_available, on_limit

    def dismiss(self, cause: str) -> None:
        """Take no more mails."""
        self.lost_cause = cause
        self.on_limit()

    def successor_opened(self) -> None:
        """Note how many mails it has carried."""
        self.succeeded_at = len(self.carried)

    def send(self, envelope: Envelope, tell: Callback) -> bool:
        """Send a mail, whose content is its name here; or reject it at once, as one that is too large for the relay."""
        self.carried.append(envelope.content.decode())
        self._carried_more.set()
        if self.refuses:
            tell((RecipientResult("ada@example.org", 552, "5.3.4", "too large"),))
            return False
        self.flying.append(tell)
        return True

    async def has_carried(self, mails: int) -> None:
        """Wait until so many mails have been sent."""
        while len(self.carried) < mails:
            self._carried_more.clear()
            await self._carried_more.wait()

    def answer(self) -> None:
        """Accept all that is in flight."""
        self._tell(TAKEN)
        self._drained.set()
        self.on_available()

    def _tell(self, outcome: Results | ConnectionLost) -> None:
        flying, self.flying = self.flying, []
        for tell in reversed(flying):
            tell(outcome)

    def lose(self) -> None:
        """Be lost, with all that is in flight."""
        self.lost_cause = "lost"
        self._tell(ConnectionLost("lost"))
        self._drained.set()
        self.on_lost()

    async def drained(self) -> None:
        """Wait for the last reply."""
        if self.flying:
            await self._drained.wait()

    async def close(self) -> None:
        """Note that it was closed."""
        self.closed.set()


class Dialler:
    """A failover whose connections a test hands out, one for each time that it is asked."""

    def __init__(self) -> None:
        self.offered: asyncio.Queue[Wire] = asyncio.Queue()
        self.asked = 0
        self.return_at_ = inf
        self.looks = 0
        self.asked_before = 0
        self.was_asked_before = asyncio.Event()

    async def connect(self) -> Wire:
        """Return the next one that the test offers."""
        self.asked += 1
        return await self.offered.get()

    async def connect_before(self, connection: Wire) -> Wire:  # noqa: ARG002
        """Fail: the earlier relay is still down, and is not tried again."""
        self.asked_before += 1
        self.was_asked_before.set()
        self.return_at_ = inf
        raise ConnectFailed("away")

    def return_at(self, connection: Wire) -> float:  # noqa: ARG002
        """Return what is set. A worker asks each time that it looks whether there is something to do."""
        self.looks += 1
        return self.return_at_


class Handler:
    """Keeps what the worker reports; jobs in `refused` must not be sent."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.done: list[str] = []
        self.lost: list[tuple[str, bool]] = []
        self.requeued: list[str] = []
        self.refused: set[str] = set()
        self.begun: list[list[str]] = []
        self.noted = asyncio.Event()
        self.changed = asyncio.Event()

    def start(self, job: Job) -> bool:
        """Return whether the job may be sent."""
        return job.id not in self.refused

    async def begin(self, jobs: Sequence[Job]) -> list[Job]:
        """Return the jobs once `noted` is set, without those that are `refused` by then."""
        self.begun.append([job.id for job in jobs])
        self.changed.set()
        await self.noted.wait()
        return [job for job in jobs if job.id not in self.refused]

    def may_send(self, job: Job) -> bool:
        """Return whether the job may be sent."""
        return job.id not in self.refused

    def put_back(self, job: Job) -> None:
        """Put the job back."""
        self.dispatcher.put_back(job)

    def replied(self, job: Job, results: Results) -> None:
        """Note the reply."""
        self.done.append(f"{job.id}{results[0].code}")
        self.changed.set()

    def connection_lost(self, job: Job, error: ConnectionLost) -> None:
        """Put the job back, as a certain loss is."""
        self.lost.append((job.id, error.not_started))
        self.dispatcher.put_back(job)

    def requeue(self, job: Job, results: Results) -> None:
        """Put the job back, and note the reply."""
        self.requeued.append(f"{job.id}{results[0].code}")
        self.dispatcher.put_back(job)


class Rig:
    """A worker between a dispatcher, a failover and a handler."""

    event_types = ALL_EVENTS

    def __init__(self) -> None:
        self.queue, self.dialler, self.owner = MailQueue(), Dialler(), ConnectionOwner()
        self.dispatcher = Dispatcher(self.queue)
        self.handler = Handler(self.dispatcher)
        self.events: list[Event] = []
        self.standby = Standby(1)
        self.worker = self.another(self.dialler)
        self.working: asyncio.Task[None]

    def another(self, dialler: "Dialler") -> Worker:
        """Return a worker that takes from the same dispatcher."""
        return Worker(cast("Failover", dialler), self.dispatcher, self.handler, self, self.standby)

    def notify(self, event: Event) -> None:
        """Keep the event: this is the observer, too."""
        self.events.append(event)

    def wire(self, **state: object) -> Wire:
        """Offer a connection with this state, and return it."""
        wire = Wire(self.owner)
        for name, value in state.items():
            setattr(wire, name, value)
        self.dialler.offered.put_nowait(wire)
        return wire

    def put(self, names: str) -> None:
        """Queue a mail for each letter, which is urgent if that is a capital."""
        for name in names:
            self.dispatcher.put(make_job(name, priority=Priority.URGENT if name.isupper() else Priority.NORMAL))


async def _turns() -> None:
    """Let everything that can happen happen: nothing here waits on a clock or a socket."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def _working() -> AsyncIterator[Rig]:
    rig = Rig()
    working = rig.working = asyncio.create_task(rig.worker.run())
    try:
        yield rig
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert working.cancelled()


async def test_takes_a_mail_only_when_there_is_room() -> None:
    """Mails that the window does not hold stay in the queue, where another worker can take them."""
    async with _working() as rig:
        rig.put("abc")
        wire = rig.wire()
        await _turns()
        assert (wire.carried, rig.queue.qsize()) == (["a", "b"], 1)
        wire.answer()
        await _turns()
        assert wire.carried == ["a", "b", "c"]
        assert sorted(rig.handler.done) == ["a250", "b250"]
        assert rig.owner.slots == 3


async def test_another_worker_takes_what_one_has_no_room_for() -> None:
    """Mails leave together as far as the window allows; the rest goes over the next connection, in the same moment."""
    async with _working() as rig:
        first, second = rig.wire(batch_open=True), rig.wire(batch_open=True)
        another = asyncio.create_task(rig.another(rig.dialler).run())
        await _turns()
        rig.put("abc")
        await _turns()
        assert sorted((first.carried, second.carried)) == [["a", "b"], ["c"]]
        another.cancel()
        await asyncio.gather(another, return_exceptions=True)


@pytest.mark.parametrize("how", ["paused", "full", "cancelled"])
async def test_a_turn_is_not_kept_over_a_mail_that_is_not_to_be_sent(how: str) -> None:
    """Another worker takes the next mail if this one yields after a refused mail and then cannot take it."""
    async with _working() as rig:
        other_dialler, other_owner = Dialler(), ConnectionOwner()
        first, second = rig.wire(), Wire(other_owner)
        await _turns()
        other_dialler.offered.put_nowait(second)
        another = asyncio.create_task(rig.another(other_dialler).run())
        await _turns()
        rig.handler.refused = {"d"}
        rig.put("de")
        await asyncio.sleep(0)  # the first one has met the mail that is not to be sent
        if how == "paused":
            rig.owner.paused = 600.0
        elif how == "full":
            first.window = 0
        else:
            rig.working.cancel()
        await _turns()
        assert (first.carried, second.carried) == ([], ["e"])
        another.cancel()
        await asyncio.gather(another, return_exceptions=True)


async def test_waits_for_a_mail_and_for_a_slot() -> None:
    """An idle worker is woken by a mail; while the relay's rate is used up, a mail waits in the queue."""
    async with _working() as rig:
        wire = rig.wire()
        await _turns()
        rig.put("a")
        await _turns()
        assert wire.carried == ["a"]
        rig.owner.paused = 0.05
        rig.put("b")
        await _turns()
        assert (wire.carried, rig.queue.qsize()) == (["a"], 1)
        rig.owner.paused = 0.0
        async with asyncio.timeout(20):
            await wire.has_carried(2)


async def test_join_waits_for_a_mail_that_is_put_back() -> None:
    """A mail whose connection is lost still counts as unfinished: `MailQueue.join` returns once it is sent."""
    async with _working() as rig:
        rig.put("a")
        joining = asyncio.create_task(rig.queue.join())
        first = rig.wire()
        await _turns()
        first.lose()
        await _turns()
        assert not joining.done()
        second = rig.wire()
        await second.has_carried(1)
        second.answer()
        await joining


async def test_a_mail_that_is_not_to_be_sent_any_more_is_passed_over() -> None:
    """A mail that was cancelled or has expired meanwhile is refused by the handler, and not sent."""
    async with _working() as rig:
        rig.handler.refused = {"a", "c"}
        rig.put("abcd")
        wire = rig.wire()
        await _turns()
        assert wire.carried == ["b", "d"]


async def test_mails_that_the_relay_cannot_take_use_up_no_slot_and_hold_up_nobody() -> None:
    """A mail that the relay cannot take has its outcome at once, uses no EMAIL_RATE slot and lets other tasks run."""
    async with _working() as rig:
        rig.put("x" * 50)
        rig.wire(refuses=True)
        for _ in range(5):
            await asyncio.sleep(0)
        assert 0 < len(rig.handler.done) < 10
        for _ in range(100):
            await asyncio.sleep(0)
        assert rig.handler.done == ["x552"] * 50
        assert rig.owner.slots == 0


async def test_what_was_in_flight_goes_over_the_next_connection_first() -> None:
    """A lost connection is released and another one opened; its mails go over that first, in their order."""
    async with _working() as rig:
        rig.put("abc")
        lost = rig.wire()
        await _turns()
        lost.lose()
        await _turns()
        assert rig.owner.released_ == [lost]
        assert lost.closed.is_set()
        following = rig.wire()
        await _turns()
        assert following.carried == ["a", "b"]
        following.answer()
        await _turns()
        assert following.carried[2:] == ["c"]
        assert ConnectionClosed("relay:25", "lost", 0, recycled=False) in rig.events


async def test_a_worn_connection_serves_until_its_successor_is_there() -> None:
    """A worn connection closes once its last replies are read, while its successor already carries mails."""
    async with _working() as rig:
        worn = rig.wire(retire_at=-inf)
        await _turns()
        rig.put("ab")
        await _turns()
        assert (worn.carried, rig.dialler.asked) == (["a", "b"], 2)
        fresh = rig.wire()
        await _turns()
        rig.put("c")
        await _turns()
        assert fresh.carried == ["c"]
        assert not worn.closed.is_set()
        worn.answer()
        await _turns()
        assert worn.closed.is_set()
        assert sorted(rig.handler.done) == ["a250", "b250"]


async def test_a_busy_connection_near_its_limit_is_used_up_before_its_successor_serves() -> None:
    """A busy connection near its limit carries mails after its successor has opened, and closes once it is idle."""
    async with _working() as rig:
        worn = rig.wire(retire_at=-inf, most=4, is_near_limit=True, window=4)
        await _turns()
        rig.put("a")
        await _turns()
        fresh = rig.wire()
        await _turns()
        rig.put("bc")
        await _turns()
        assert (worn.carried, fresh.carried) == (["a", "b", "c"], [])
        assert worn.succeeded_at == 1
        worn.answer()
        await _turns()
        assert worn.closed.is_set()
        rig.put("d")
        await _turns()
        assert fresh.carried == ["d"]


async def test_a_stalled_connection_near_its_limit_makes_way_for_its_successor() -> None:
    """Mails do not wait for a relay that answers slowly on one connection while another one is open."""
    async with _working() as rig:
        worn = rig.wire(retire_at=-inf, most=4, is_near_limit=True)
        await _turns()
        fresh = rig.wire()
        rig.put("abc")
        await _turns()
        assert (worn.carried, fresh.carried) == (["a", "b"], [])
        worn.stalled = True
        async with asyncio.timeout(20):
            await fresh.has_carried(1)
        assert (worn.carried, fresh.carried) == (["a", "b"], ["c"])
        worn.answer()


async def test_an_exhausted_connection_is_released_before_its_successor_is_open() -> None:
    """The worker releases an exhausted connection before it dials, since the relay may allow no further connection."""
    async with _working() as rig:
        worn = rig.wire(retire_at=-inf, most=2)
        await _turns()
        rig.put("abc")
        await _turns()
        assert worn.carried == ["a", "b"]
        assert rig.owner.released_ == [worn]
        worn.answer()
        await _turns()
        assert worn.closed.is_set()
        fresh = rig.wire()
        await _turns()
        assert fresh.carried == ["c"]
        assert rig.dialler.asked == 2


@pytest.mark.parametrize("exhausted", [True, False])
async def test_looks_again_when_a_limit_is_learned(exhausted: bool) -> None:  # noqa: FBT001
    """An idle worker releases a connection that turns out to be exhausted, and replaces one that is to retire."""
    async with _working() as rig:
        wire = rig.wire()
        await _turns()
        assert rig.dialler.asked == 1
        if exhausted:
            wire.most = 0
        else:
            wire.retire_at = -inf
        wire.on_limit()
        await _turns()
        assert rig.dialler.asked == 2
        assert rig.owner.released_ == [wire] * exhausted


async def test_looks_again_when_the_connection_may_have_come_of_age() -> None:
    """An idle worker replaces its connection at `retire_at`, though nothing else happens."""
    async with _working() as rig:
        idle = rig.wire(retire_at=asyncio.get_running_loop().time() + 0.5)  # later than a busy machine takes its turns
        await _turns()
        assert rig.dialler.asked == 1
        rig.wire()
        async with asyncio.timeout(20):
            await idle.closed.wait()
        assert rig.dialler.asked == 2


async def test_an_earlier_relay_is_asked_for_when_it_may_be_back_and_not_before() -> None:
    """The worker dials it as often as `Failover.return_at` allows; where that fails, its connection serves on."""
    async with _working() as rig:
        loop = asyncio.get_running_loop()
        rig.dialler.return_at_ = loop.time() + 0.5  # later than a busy machine takes its turns
        wire = rig.wire()
        await _turns()
        assert rig.dialler.asked_before == 0
        async with asyncio.timeout(20):
            await rig.dialler.was_asked_before.wait()
        rig.put("a")
        await _turns()
        assert wire.carried == ["a"]


@pytest.mark.parametrize("which", [0, 1])
async def test_a_turn_that_cannot_be_used_is_passed_on(which: int) -> None:
    """A connection is lost in the turn of the loop in which a mail comes: whichever it was, the other has the mail."""
    async with _working() as rig:
        another = asyncio.create_task(rig.another(rig.dialler).run())
        wires = rig.wire(), rig.wire()
        await _turns()
        rig.put("a")
        wires[which].lose()
        await _turns()
        assert wires[1 - which].carried == ["a"]
        another.cancel()
        await asyncio.gather(another, return_exceptions=True)


@pytest.mark.parametrize("turns", range(8))
async def test_a_stop_closes_all_that_is_open(turns: int) -> None:
    """A stop closes the connection, one that awaits its last replies, and a successor, open or still opening."""
    rig = Rig()
    working = asyncio.create_task(rig.worker.run())
    wires = [rig.wire(retire_at=-inf)]
    rig.put("ab")
    await _turns()
    wires.append(rig.wire())
    for _ in range(turns):
        await asyncio.sleep(0)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert working.cancelled()
    not_taken = rig.dialler.offered.qsize()
    assert [wire.closed.is_set() for wire in wires] == [True, not not_taken]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_error_of_its_detours_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """No detour fails unseen: its error ends the worker, which closes its connection, and so the service."""
    broken = asyncio.Event()

    async def fail(_: Detours) -> None:
        await broken.wait()
        raise ValueError("boom")

    monkeypatch.setattr(Detours, "run", fail)
    rig = Rig()
    working = asyncio.create_task(rig.worker.run())
    wire = rig.wire()
    await _turns()
    broken.set()
    with pytest.raises(ExceptionGroup) as caught:
        await working
    assert caught.group_contains(ValueError, match="boom")
    assert wire.closed.is_set()


class FailingWire(Wire):
    """A connection that fails to close, for a reason that no relay gives."""

    async def close(self) -> None:
        """Fail after the connection has closed."""
        await super().close()
        raise ValueError("boom")


async def test_an_error_about_a_connection_that_leaves_ends_the_worker() -> None:
    """No replaced connection fails unseen: the error ends the worker, which closes the others, and so the service."""
    rig = Rig()
    working = asyncio.create_task(rig.worker.run())
    worn = FailingWire(rig.owner)
    worn.retire_at = -inf
    rig.dialler.offered.put_nowait(worn)
    rig.put("a")
    await _turns()
    successor = rig.wire()
    await _turns()
    assert not worn.closed.is_set()
    worn.answer()
    with pytest.raises(ExceptionGroup) as caught:
        await working
    assert caught.group_contains(ValueError, match="boom")
    assert worn.closed.is_set()
    assert successor.closed.is_set()
    assert rig.worker.connections == ()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_error_about_a_connection_that_a_stop_closes_is_raised() -> None:
    """A stop that fails to close a connection says so, and counts what it has sent all the same."""
    rig = Rig()
    working = asyncio.create_task(rig.worker.run())
    rig.dialler.offered.put_nowait(FailingWire(rig.owner))
    await _turns()
    working.cancel()
    with pytest.raises(BaseExceptionGroup) as caught:
        await working
    assert caught.group_contains(ValueError, match="boom")
    assert rig.events == [ConnectionClosed("relay:25", "the service stops", 0, recycled=False)]
    assert rig.worker.connections == ()


async def test_what_a_stop_closes_is_not_recycled() -> None:
    """Connections that a stop closes do not count as recycled: neither the one at work nor a successor just opened."""
    async with _working() as rig:
        worn = rig.wire(retire_at=-inf)
        await _turns()
        successor = rig.wire()
        await asyncio.sleep(0)  # it has opened, and the worker has not looked since
        assert rig.dialler.offered.empty()
    assert worn.closed.is_set()
    assert successor.closed.is_set()
    assert rig.events == [ConnectionClosed("relay:25", "the service stops", 0, recycled=False)] * 2
    assert repr(rig.worker).endswith(", 0 leaving, 0 recycled>")


async def test_what_a_successor_replaces_is_recycled() -> None:
    """A replaced connection counts as recycled even if it closes during a stop while it awaits its last replies."""
    async with _working() as rig:
        rig.put("a")
        worn = rig.wire(retire_at=-inf)
        await _turns()
        rig.wire()
        await _turns()
        assert worn.flying
    assert ConnectionClosed("relay:25", "worn, old or idle", 0, recycled=True) in rig.events
    assert ConnectionClosed("relay:25", "the service stops", 0, recycled=False) in rig.events
    assert repr(rig.worker).endswith(", 0 leaving, 1 recycled>")


async def test_the_load_of_a_worker() -> None:
    """A worker's load is its mails in flight, plus STALLED if they make no progress, and 0 without a connection."""
    async with _working() as rig:
        loads = [rig.worker.load]
        wire = rig.wire()
        await _turns()
        for names, stalled in (("", True), ("ab", False), ("", True)):
            rig.put(names)
            wire.stalled = stalled
            await _turns()
            loads.append(rig.worker.load)
    assert loads == [0, 0, 2, STALLED + 2]


async def test_a_reply_does_not_wake_a_worker_that_waits_for_its_turn() -> None:
    """A reply does not wake a worker that waits for its turn; after the last reply the worker counts as idle."""
    async with _working() as rig:
        wire = rig.wire(window=3)
        rig.put("a")
        await _turns()
        looks = rig.dialler.looks
        assert repr(rig.dispatcher).startswith("<Dispatcher 0 idle, 1 busy, 0 woken, ")
        wire.answer()
        await _turns()
        assert rig.dialler.looks == looks
        assert repr(rig.dispatcher).startswith("<Dispatcher 1 idle, 0 busy, 0 woken, ")
        rig.put("b")
        await _turns()
        assert wire.carried == ["a", "b"]


async def test_a_reply_to_one_of_several_leaves_a_worker_busy() -> None:
    """A worker with a mail still in flight after a reply waits for its turn behind idle workers."""
    async with _working() as rig:
        wire = rig.wire(window=3)
        rig.put("ab")
        await _turns()
        wire.flying.pop()(TAKEN)
        wire.on_available()
        await _turns()
        assert repr(rig.dispatcher).startswith("<Dispatcher 0 idle, 1 busy, 0 woken, ")
        assert rig.handler.done == ["b250"]


async def test_a_reply_wakes_a_worker_that_waits_for_room() -> None:
    """A reply that frees a place in the window wakes the worker, which sends the next mail at once."""
    async with _working() as rig:
        wire = rig.wire(window=1)
        rig.put("ab")
        await _turns()
        assert repr(rig.dispatcher).startswith("<Dispatcher 0 idle, 0 busy, 0 woken, ")
        wire.answer()
        await _turns()
        assert wire.carried == ["a", "b"]


async def test_an_urgent_mail_goes_beyond_the_limit_of_the_others() -> None:
    """A connection that has as many mails in flight as its relay is quick for takes urgent ones up to its window."""
    async with _working() as rig:
        wire = rig.wire(window=3, limit=1)
        rig.put("abc")
        await _turns()
        assert wire.carried == ["a"]
        rig.put("XYZ")
        await _turns()
        assert wire.carried == ["a", "X", "Y"]
        wire.answer()
        await _turns()
        assert wire.carried == ["a", "X", "Y", "Z"]
        assert rig.queue.qsize() == 2


async def test_an_urgent_mail_goes_while_the_others_wait_for_a_slot() -> None:
    """While the rate of the relay allows no mail an urgent one leaves at once, whether it comes before or after."""
    async with _working() as rig:
        rig.owner.paused, rig.owner.urgent_paused = 600.0, 0.0
        wire = rig.wire(window=9)
        rig.put("aX")
        await _turns()
        assert wire.carried == ["X"]
        rig.put("bY")
        await _turns()
        assert (wire.carried, rig.owner.slots, rig.owner.urgent_slots) == (["X", "Y"], 2, 2)


async def test_an_urgent_mail_waits_for_the_slot_of_urgent_ones() -> None:
    """While the rate allows no urgent mail either, it leaves once there is a slot for it, before the others."""
    async with _working() as rig:
        rig.owner.paused, rig.owner.urgent_paused = 600.0, 0.05
        wire = rig.wire(window=9)
        rig.put("aX")
        await _turns()
        assert wire.carried == []
        rig.owner.urgent_paused = 0.0
        async with asyncio.timeout(20):
            await wire.has_carried(1)
        assert wire.carried == ["X"]


async def test_an_urgent_mail_goes_over_the_relay_that_has_a_slot() -> None:
    """A worker that has no slot for an urgent mail passes its turn on to one whose relay has."""
    async with _working() as rig:
        other_dialler, other_owner = Dialler(), ConnectionOwner()
        other_owner.paused, other_owner.urgent_paused = 600.0, 0.0
        other = Wire(other_owner)
        other_dialler.offered.put_nowait(other)
        another = asyncio.create_task(rig.another(other_dialler).run())
        rig.owner.paused, rig.owner.urgent_paused = 600.0, 0.0
        wire = rig.wire()
        await _turns()
        rig.owner.urgent_paused = 600.0
        rig.put("aX")
        await _turns()
        assert (wire.carried, other.carried) == ([], ["X"])
        another.cancel()
        await asyncio.gather(another, return_exceptions=True)


async def test_without_a_rate_no_slot_is_taken() -> None:
    """A relay without EMAIL_RATE is neither asked for a pause nor for a slot."""
    async with _working() as rig:
        rig.owner.is_limited, rig.owner.paused = False, 600.0
        wire = rig.wire()
        rig.put("a")
        await _turns()
        assert (wire.carried, rig.owner.slots) == (["a"], 0)


@pytest.mark.parametrize(("trouble", "code", "said"), [(True, 250, 1), (True, 451, 0), (False, 250, 0)])
async def test_a_relay_in_trouble_learns_of_an_accepted_mail(trouble: bool, code: int, said: int) -> None:  # noqa: FBT001
    """The worker reports an accepted mail to a relay in trouble only, so that its breaker may close."""
    async with _working() as rig:
        rig.owner.is_in_trouble = trouble
        wire = rig.wire()
        rig.put("a")
        await _turns()
        wire.flying.pop()((RecipientResult("ada@x.org", code),))
        assert rig.owner.accepted == [wire] * said
        assert rig.handler.done == [f"a{code}"]


async def test_every_job_is_done_once_for_the_queue() -> None:
    """`MailQueue.join` returns once each mail is replied to, refused, or sent again after a lost connection."""
    async with _working() as rig:
        rig.handler.refused = {"r"}
        lost, wire = rig.wire(), rig.wire(window=3)
        rig.put("arbc")
        await _turns()
        lost.lose()
        await _turns()
        joining = asyncio.create_task(rig.queue.join())
        await _turns()
        assert (lost.carried, wire.carried) == (["a", "b"], ["a", "b", "c"])
        assert not joining.done()
        wire.answer()
        await joining


LATER = RecipientResult("ada@example.org", 432, "4.3.2", "Concurrent connections limit exceeded")
TOO_FAST = RecipientResult("ada@example.org", 450, "4.7.1", "Error: too much mail from 127.0.0.1")


async def test_a_mail_refused_for_the_number_of_connections_goes_over_another() -> None:
    """The connection takes no more mails and closes; the mail goes at once over the next one, and is no attempt."""
    async with _working() as rig:
        crowded = rig.wire()
        rig.put("a")
        await _turns()
        crowded.flying.pop()((LATER,))
        await _turns()
        assert rig.owner.refused_ == [ReplyKind.TOO_MANY_CONNECTIONS]
        assert rig.owner.released_ == [crowded]
        assert (rig.handler.requeued, rig.handler.done) == (["a432"], [])
        following = rig.wire()
        await _turns()
        assert following.carried == ["a"]


USED_UP = RecipientResult("ada@example.org", 450, "4.7.0", "Too many messages in this session")


@pytest.mark.parametrize(("sent", "put_off"), [(5, True), (0, False)])
async def test_a_mail_refused_on_a_connection_that_is_used_up_goes_over_another(sent: int, put_off: bool) -> None:  # noqa: FBT001
    """The connection closes, and the mail is no attempt; where it has sent none, the next one would refuse it too."""
    async with _working() as rig:
        wire = rig.wire()
        wire.sent = sent
        rig.put("a")
        await _turns()
        wire.flying.pop()((USED_UP,))
        await _turns()
        assert (rig.owner.released_ == [wire]) is put_off
        assert (rig.handler.requeued, rig.handler.done) == ((["a450"], []) if put_off else ([], ["a450"]))
        assert rig.owner.refused_ == []


async def test_a_session_that_is_no_longer_signed_in_is_left() -> None:
    """Microsoft 365 says 530 5.7.57 on a connection whose sign-in has expired: the mail goes over another one."""
    async with _working() as rig:
        expired = rig.wire()
        expired.sent = 1
        rig.put("a")
        await _turns()
        expired.flying.pop()((RecipientResult("ada@x.org", 530, "5.7.57", "Client not authenticated to send mail"),))
        await _turns()
        assert rig.owner.released_ == [expired]
        assert (rig.handler.requeued, rig.handler.done) == (["a530"], [])


async def test_a_mail_refused_as_too_fast_waits_in_the_queue() -> None:
    """The relay's owner learns of it, the mail is no attempt, and the connection serves on."""
    async with _working() as rig:
        wire = rig.wire(window=1)
        rig.put("a")
        await _turns()
        rig.owner.paused = 600.0
        wire.flying.pop()((TOO_FAST,))
        wire.on_available()
        await _turns()
        assert rig.owner.refused_ == [ReplyKind.TOO_FAST]
        assert (rig.handler.requeued, rig.handler.done) == (["a450"], [])
        assert (wire.carried, rig.queue.qsize(), rig.owner.released_) == (["a"], 1, [])


@pytest.mark.parametrize(
    "results",
    [
        (RecipientResult("ada@x.org", 250), TOO_FAST),
        (RecipientResult("ada@x.org", 550, "5.1.1", "no such user"), TOO_FAST),
        (RecipientResult("ada@x.org", 550, "5.7.1", "too many messages in this hour"),),
    ],
)
async def test_a_mail_that_is_partly_decided_is_an_attempt(results: Results) -> None:
    """Replies that accept or reject a recipient stand; the owner learns of it all the same."""
    async with _working() as rig:
        wire = rig.wire()
        rig.put("a")
        await _turns()
        wire.flying.pop()(results)
        assert rig.owner.refused_ == [ReplyKind.TOO_FAST]
        assert (rig.handler.requeued, len(rig.handler.done)) == ([], 1)


@pytest.mark.parametrize(
    ("kind", "crossed", "certain"),
    [
        (ReplyKind.TOO_MANY_CONNECTIONS, False, True),
        (ReplyKind.TOO_FAST, False, True),
        (ReplyKind.OTHER, True, True),
        (ReplyKind.OTHER, False, False),
    ],
)
async def test_a_loss_that_has_nothing_to_do_with_the_mail(kind: ReplyKind, crossed: bool, certain: bool) -> None:  # noqa: FBT001
    """A goodbye for the number of connections, the rate or idleness costs the mail neither an attempt nor a wait."""
    async with _working() as rig:
        wire = rig.wire(crossed=crossed, parting_kind=kind)
        rig.put("ab")
        await _turns()
        wire.flying.pop(0)(ConnectionLost("the relay closes"))
        wire.flying.pop(0)(ConnectionLost("the relay closes", uncertain=True))
        assert rig.handler.lost == [("a", certain), ("b", False)]


@pytest.mark.parametrize(("crossed", "requeued"), [(True, ["a451"]), (False, [])])
async def test_a_timeout_that_crosses_a_mail_is_not_its_deferral(crossed: bool, requeued: list[str]) -> None:  # noqa: FBT001
    """Amazon SES says 451 4.4.2 where others say 421: read as the reply to MAIL, it is about the pause before."""
    async with _working() as rig:
        wire = rig.wire(crossed=crossed)
        rig.put("a")
        await _turns()
        wire.flying.pop()((RecipientResult("ada@x.org", 451, "4.4.2", "Timeout waiting for data from client."),))
        assert rig.handler.requeued == requeued
        assert rig.owner.refused_ == []


async def test_a_worn_connection_closes_first_where_the_relay_takes_no_further_one() -> None:
    """At the relay's limit of connections an aged one is closed before the next is dialled."""
    async with _working() as rig:
        rig.owner.has_place = False
        worn = rig.wire(retire_at=-inf)
        await _turns()
        assert rig.owner.released_ == [worn]
        assert worn.closed.is_set()
        rig.put("a")
        fresh = rig.wire()
        await _turns()
        assert fresh.carried == ["a"]


async def test_a_worn_connection_is_replaced_while_an_earlier_relay_is_tried() -> None:
    """The attempt to return is given up for the connection that replaces the worn one, which serves meanwhile."""
    async with _working() as rig:
        hangs = asyncio.Event()

        async def try_earlier(connection: Wire) -> Wire:  # noqa: ARG001
            hangs.set()
            return await asyncio.Future[Wire]()

        rig.dialler.connect_before = try_earlier  # type: ignore[method-assign]
        rig.dialler.return_at_ = -inf
        worn = rig.wire(retire_at=asyncio.get_running_loop().time() + 0.05)
        async with asyncio.timeout(20):
            await hangs.wait()
        rig.put("a")
        await worn.has_carried(1)
        fresh = rig.wire()
        worn.answer()
        async with asyncio.timeout(20):
            await worn.closed.wait()
        rig.put("b")
        await fresh.has_carried(1)
        assert (worn.carried, fresh.carried) == (["a"], ["b"])


# Mails that the store notes first.


def _noted(name: str) -> Job:
    job = make_job(name)
    job.is_noted_first = True
    return job


async def test_mails_are_noted_together() -> None:
    """The worker has the store note as many mails as there is room for, and sends none before that."""
    async with _working() as rig:
        rig.owner.is_limited = False
        wire = rig.wire()
        for name in "abc":
            rig.dispatcher.put(_noted(name))
        await _turns()
        assert (rig.handler.begun, wire.carried) == ([["a", "b"]], [])
        rig.handler.noted.set()
        await _turns()
        assert wire.carried == ["a", "b"]
        wire.answer()
        await _turns()
        assert (rig.handler.begun[1:], wire.carried) == ([["c"]], ["a", "b", "c"])
        wire.answer()
        async with asyncio.timeout(20):
            await rig.queue.join()
        assert sorted(rig.handler.done) == ["a250", "b250", "c250"]


async def test_a_limited_relay_gets_noted_mails_one_by_one() -> None:
    """Where the relay has a rate, the worker has one mail noted at a time, and takes a slot for each."""
    async with _working() as rig:
        wire = rig.wire()
        rig.handler.noted.set()
        for name in "ab":
            rig.dispatcher.put(_noted(name))
        await _turns()
        assert (rig.handler.begun, wire.carried, rig.owner.slots) == ([["a"], ["b"]], ["a", "b"], 2)


async def test_a_connection_that_is_lost_while_the_store_writes() -> None:
    """Noted mails whose connection is lost meanwhile go over the next one; refused ones do not."""
    async with _working() as rig:
        rig.owner.is_limited = False
        first = rig.wire()
        for name in "ab":
            rig.dispatcher.put(_noted(name))
        await _turns()
        first.lose()
        second = rig.wire()
        rig.handler.refused = {"a"}
        rig.handler.noted.set()
        await _turns()
        assert (first.carried, second.carried) == ([], ["b"])
        second.answer()
        async with asyncio.timeout(20):
            await rig.queue.join()
