"""The worker: when it takes a mail, when it changes its connection, and what it leaves behind when it is stopped."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import cast

import pytest

from otpmail.delivery.job import Job
from otpmail.delivery.queue import STALLED, MailQueue
from otpmail.delivery.worker import Worker
from otpmail.errors import ConnectFailed, ConnectionLost
from otpmail.events import ALL_EVENTS, ConnectionClosed, Event
from otpmail.model import Envelope, Mail, Priority, RecipientResult
from otpmail.relays.connection import Connection
from otpmail.relays.failover import Failover
from otpmail.smtp.transaction import Callback, Results

TAKEN = (RecipientResult("ada@example.org", 250, "2.0.0", "taken"),)


class ConnectionOwner:
    """The relay of all connections here: no rate, and it keeps what it was told."""

    name = "relay:25"

    def __init__(self) -> None:
        self.paused = 0.0
        self.slots = 0
        self.released_: list[Wire] = []

    def pause(self) -> float:
        """As `RateLimit` says."""
        return self.paused

    def takes_slot(self) -> None:
        """Count it."""
        self.slots += 1

    def took_mail(self, *_: object) -> None:
        """Nothing here asks."""

    def released(self, connection: "Wire") -> None:
        """Keep it."""
        self.released_.append(connection)


class Wire:
    """A connection whose state a test sets, and whose mails it answers."""

    sent = 0
    lost_cause = ""
    is_exhausted = False
    should_retire = False
    stalled = False
    batch_open = False
    retire_at = inf
    on_lost: Callable[[], None]
    on_available: Callable[[], None]

    def __init__(self, owner: ConnectionOwner, window: int = 2) -> None:
        self.owner = owner
        self.window = window
        self.flying: list[Callback] = []
        self.carried: list[str] = []
        self.refuses = False
        self._carried_more = asyncio.Event()
        self.closed = asyncio.Event()
        self._drained = asyncio.Event()

    @property
    def is_available(self) -> bool:
        """As a connection with this window."""
        return len(self.flying) < self.window and not (self.lost_cause or self.is_exhausted)

    @property
    def load(self) -> int:
        """How many mails are in flight, unless they leave together with the next."""
        return 0 if self.batch_open else len(self.flying)

    def watch(self, *, on_lost: Callable[[], None], on_available: Callable[[], None]) -> None:
        """Keep whom to tell."""
        self.on_lost, self.on_available = on_lost, on_available

    def send(self, envelope: Envelope, tell: Callback) -> bool:
        """Take a mail, whose content is its name here; or refuse it, as one that the relay can't take."""
        self.carried.append(envelope.content.decode())
        self._carried_more.set()
        if self.refuses:
            tell((RecipientResult("ada@example.org", 552, "5.3.4", "too large"),))
            return False
        self.flying.append(tell)
        return True

    async def has_carried(self, mails: int) -> None:
        """Wait until so many mails have been handed in."""
        while len(self.carried) < mails:
            self._carried_more.clear()
            await self._carried_more.wait()

    def answer(self) -> None:
        """Say yes to all that is in flight."""
        self._tell(TAKEN)
        self._drained.set()
        self.on_available()

    def _tell(self, outcome: Results | ConnectionLost) -> None:
        flying, self.flying = self.flying, []
        for tell in reversed(flying):
            tell(outcome)

    def lose(self) -> None:
        """End, with all that is in flight."""
        self.lost_cause = "lost"
        self._tell(ConnectionLost("lost"))
        self._drained.set()
        self.on_lost()

    async def drained(self) -> None:
        """Wait for the last answer."""
        if self.flying:
            await self._drained.wait()

    async def close(self) -> None:
        """Say that it was closed."""
        self.closed.set()


class Way:
    """A route whose connections a test hands out, one for each time that it is asked."""

    def __init__(self) -> None:
        self.offered: asyncio.Queue[Wire] = asyncio.Queue()
        self.asked = 0
        self.return_at_ = inf
        self.asked_before = 0
        self.was_asked_before = asyncio.Event()

    async def connect(self) -> Wire:
        """The next one that is offered."""
        self.asked += 1
        return await self.offered.get()

    async def connect_before(self, connection: Wire) -> Wire:  # noqa: ARG002
        """There is none, and there will not be."""
        self.asked_before += 1
        self.was_asked_before.set()
        self.return_at_ = inf
        raise ConnectFailed("away")

    def return_at(self, connection: Wire) -> float:  # noqa: ARG002
        """As it was set."""
        return self.return_at_


class DeliveryHandler:
    """Keeps what the worker reports; jobs in `refused` are not to be sent."""

    def __init__(self, queue: MailQueue) -> None:
        self.queue = queue
        self.done: list[str] = []
        self.refused: set[str] = set()
        self.changed = asyncio.Event()

    def begin(self, job: Job) -> bool:
        """As `Lifecycle`."""
        return job.id not in self.refused

    def answered(self, job: Job, results: tuple[RecipientResult, ...]) -> None:
        """Note the answer."""
        self.done.append(f"{job.id}{results[0].code}")
        self.changed.set()

    def lost(self, job: Job, error: ConnectionLost) -> None:  # noqa: ARG002
        """Put it back, as a certain loss is."""
        self.queue.put_back(job)


class Rig:
    """A worker at work between a queue, a way and a desk."""

    event_types = ALL_EVENTS

    def __init__(self) -> None:
        self.queue, self.way, self.owner = MailQueue(), Way(), ConnectionOwner()
        self.desk = DeliveryHandler(self.queue)
        self.events: list[Event] = []
        self.worker = Worker(cast("Failover", self.way), self.queue, self.desk, self)
        self.working: asyncio.Task[None]

    def notify(self, event: Event) -> None:
        """Keep it: this is the observer, too."""
        self.events.append(event)

    def wire(self, **state: object) -> Wire:
        """Offer a connection with this state."""
        wire = Wire(self.owner)
        for name, value in state.items():
            setattr(wire, name, value)
        self.way.offered.put_nowait(wire)
        return wire

    def put(self, names: str) -> None:
        """Queue a mail for each letter."""
        for name in names:
            mail = Mail(name, "anonymous", f"<{name}@example.org>", 1.0)
            envelope = Envelope("service@example.org", ("ada@example.org",), name.encode())
            self.queue.put_nowait(Job(mail, envelope, Priority.NORMAL, inf, guaranteed=True))


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
    """What the window does not hold stays in the queue, where another worker can take it."""
    async with _working() as rig:
        rig.put("abc")
        wire = rig.wire()
        await _turns()
        assert (wire.carried, rig.queue.qsize()) == (["a", "b"], 1)
        wire.answer()
        await _turns()
        assert wire.carried == ["a", "b", "c"]
        assert sorted(rig.desk.done) == ["a250", "b250"]
        assert rig.owner.slots == 3


async def test_what_one_has_no_room_for_another_takes() -> None:
    """Where a mail may leave with others it does; the rest goes over the next connection, in the same moment."""
    async with _working() as rig:
        first, second = rig.wire(batch_open=True), rig.wire(batch_open=True)
        another = asyncio.create_task(Worker(cast("Failover", rig.way), rig.queue, rig.desk, rig).run())
        await _turns()
        rig.put("abc")
        await _turns()
        assert sorted((first.carried, second.carried)) == [["a", "b"], ["c"]]
        another.cancel()
        await asyncio.gather(another, return_exceptions=True)


@pytest.mark.parametrize("how", ["paused", "full", "cancelled"])
async def test_a_turn_is_not_kept_over_a_mail_that_is_not_to_be_sent(how: str) -> None:
    """Where the worker lets others have the loop after it, and then can't take the next mail, another one does."""
    async with _working() as rig:
        other_way, other_keeper = Way(), ConnectionOwner()
        first, second = rig.wire(), Wire(other_keeper)
        await _turns()
        other_way.offered.put_nowait(second)
        another = asyncio.create_task(Worker(cast("Failover", other_way), rig.queue, rig.desk, rig).run())
        await _turns()
        rig.desk.refused = {"d"}
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
        async with asyncio.timeout(5):
            await wire.has_carried(2)


async def test_a_mail_that_is_not_to_be_sent_any_more_is_passed_over() -> None:
    """Cancelled or expired meanwhile: the desk says so, and it is not on the wire."""
    async with _working() as rig:
        rig.desk.refused = {"a", "c"}
        rig.put("abcd")
        wire = rig.wire()
        await _turns()
        assert wire.carried == ["b", "d"]


async def test_mails_that_the_relay_cannot_take_use_up_no_slot_and_hold_up_nobody() -> None:
    """Each is answered at once, none counts against EMAIL_RATE, and others have the loop between two."""
    async with _working() as rig:
        rig.put("x" * 50)
        rig.wire(refuses=True)
        for _ in range(5):
            await asyncio.sleep(0)
        assert 0 < len(rig.desk.done) < 10
        for _ in range(100):
            await asyncio.sleep(0)
        assert rig.desk.done == ["x552"] * 50
        assert rig.owner.slots == 0


async def test_what_was_in_flight_goes_over_the_next_connection_first() -> None:
    """A connection that is lost is given back and another asked for; its mails come back in front, in their order."""
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
    """Then it is answered what is in flight on it, while the next is at work already, and takes its leave."""
    async with _working() as rig:
        worn = rig.wire(should_retire=True)
        await _turns()
        rig.put("ab")
        await _turns()
        assert (worn.carried, rig.way.asked) == (["a", "b"], 2)
        fresh = rig.wire()
        await _turns()
        rig.put("c")
        await _turns()
        assert fresh.carried == ["c"]
        assert not worn.closed.is_set()
        worn.answer()
        await _turns()
        assert worn.closed.is_set()
        assert sorted(rig.desk.done) == ["a250", "b250"]


async def test_a_spent_connection_is_let_go_before_its_successor_is_there() -> None:
    """The relay may allow no more connections than there are: the next one would never come."""
    async with _working() as rig:
        worn = rig.wire(should_retire=True)
        await _turns()
        worn.is_exhausted = True
        worn.on_available()
        await _turns()
        assert worn.closed.is_set()
        fresh = rig.wire()
        rig.put("a")
        await _turns()
        assert fresh.carried == ["a"]


async def test_looks_again_when_the_connection_may_have_come_of_age() -> None:
    """An idle worker replaces its connection at the time that this says, though nothing happens."""
    async with _working() as rig:
        idle = rig.wire(retire_at=asyncio.get_running_loop().time() + 0.05)
        await _turns()
        assert rig.way.asked == 1
        idle.should_retire = True
        rig.wire()
        async with asyncio.timeout(5):
            await idle.closed.wait()
        assert rig.way.asked == 2


async def test_an_earlier_relay_is_asked_for_when_it_may_be_back_and_not_before() -> None:
    """As often as `Failover.return_at` lets; the connection serves on where there is none to be had."""
    async with _working() as rig:
        loop = asyncio.get_running_loop()
        rig.way.return_at_ = loop.time() + 0.05
        wire = rig.wire()
        await _turns()
        assert rig.way.asked_before == 0
        async with asyncio.timeout(5):
            await rig.way.was_asked_before.wait()
        rig.put("a")
        await _turns()
        assert wire.carried == ["a"]


async def test_a_turn_that_cannot_be_used_is_passed_on() -> None:
    """Where the connection is lost in the turn of the loop in which a mail comes, another worker has the mail."""
    rig = Rig()
    other = Worker(cast("Failover", rig.way), rig.queue, rig.desk, rig)
    tasks = [asyncio.create_task(worker.run()) for worker in (rig.worker, other)]
    first, second = rig.wire(), rig.wire()
    await _turns()
    rig.put("a")
    woken = first if rig.worker in rig.queue._woken else second
    woken.lose()
    await _turns()
    assert (first if woken is second else second).carried == ["a"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("turns", range(8))
async def test_a_stop_closes_all_that_is_open(turns: int) -> None:
    """Whenever it comes: the connection, one that is being left, and a successor that is there or just came."""
    rig = Rig()
    working = asyncio.create_task(rig.worker.run())
    wires = [rig.wire(should_retire=True)]
    rig.put("ab")
    await _turns()
    wires.append(rig.wire())
    for _ in range(turns):
        await asyncio.sleep(0)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert working.cancelled()
    not_taken = rig.way.offered.qsize()
    assert [wire.closed.is_set() for wire in wires] == [True, not not_taken]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_a_stop_closes_is_not_recycled() -> None:
    """It was not replaced: neither the connection at work, nor a successor that has just come, counts as such."""
    async with _working() as rig:
        wires = [rig.wire(), rig.wire()]
        await _turns()
        rig.worker._successor = asyncio.create_task(rig.worker._route.connect())  # unseen, since it wakes nobody
        await _turns()
        assert rig.way.offered.empty()
    assert all(wire.closed.is_set() for wire in wires)
    assert rig.events == [ConnectionClosed("relay:25", "the service stops", 0, recycled=False)] * 2
    assert repr(rig.worker).endswith(", 0 leaving, 0 recycled>")


async def test_what_a_successor_replaces_is_recycled() -> None:
    """It may end as the service stops, while it waits for its last answers: it was replaced before."""
    async with _working() as rig:
        rig.put("a")
        worn = rig.wire(should_retire=True)
        await _turns()
        rig.wire()
        await _turns()
        assert worn.flying
    assert ConnectionClosed("relay:25", "worn, old or idle", 0, recycled=True) in rig.events
    assert ConnectionClosed("relay:25", "the service stops", 0, recycled=False) in rig.events
    assert repr(rig.worker).endswith(", 0 leaving, 1 recycled>")


def test_the_load_of_a_worker() -> None:
    """How many mails are in flight, and from STALLED on where they make no progress; 0 without a connection."""

    async def loads() -> list[int]:
        rig = Rig()
        seen = [rig.worker.load]
        wire = Wire(rig.owner)
        rig.worker._connection = cast("Connection", wire)
        for flying, stalled in ((0, True), (2, False), (2, True)):
            wire.flying, wire.stalled = [lambda _: None] * flying, stalled
            seen.append(rig.worker.load)
        return seen

    assert asyncio.run(loads()) == [0, 0, 2, STALLED + 2]
