"""The backlog: mails beyond the queue's high-water mark wait in the store, and come back in turn, or when needed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from delivery.fakes import NOW, Clock, Store, limits, make_job
from otpmail.delivery.backlog import Backlog
from otpmail.delivery.dispatch import Dispatcher
from otpmail.delivery.intake import Intake
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.queue import MailQueue
from otpmail.delivery.waiters import Waiters
from otpmail.delivery.waiting import WAITING_OCTETS
from otpmail.errors import Unavailable
from otpmail.events import ALL_EVENTS, Event, MailAccepted
from otpmail.model import MailState, Priority
from otpmail.store.base import Entry, Left


class Contents:
    """Has the content of mails, and notes which were read."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.earlier: list[Left] = []
        self.reads: list[list[str]] = []
        self.down = 0  # reads that fail

    def left(self) -> Iterator[Left]:
        """Yield the mails of an earlier process."""
        yield from self.earlier

    async def read(self, mail_ids: Sequence[str]) -> tuple[list[Entry], list[str]]:
        """Return those that it has; the others can't be read."""
        if self.down:
            self.down -= 1
            raise Unavailable("the store is down", retry_after=0.001)
        self.reads.append(list(mail_ids))
        known = [mail_id for mail_id in mail_ids if mail_id in self.entries]
        return [self.entries[mail_id] for mail_id in known], [f"no {key}" for key in mail_ids if key not in known]


class Rig:
    """A backlog before a queue with a high-water mark of 2, which nobody empties."""

    event_types = ALL_EVENTS

    def __init__(self, *, contents: bool = True, near: int = 0, held: int = 0) -> None:
        self.clock = Clock()
        self.queue = MailQueue(high_water=2)
        self.store = Store(self.clock.now, durable=True)
        self.contents = Contents()
        self.events: list[Event] = []
        given: dict[str, Any] = limits()
        self.places, self.memory = given["places"], given["memory"]
        self.lifecycle = Lifecycle(
            Dispatcher(self.queue),
            self.store,
            Waiters(),
            self,
            random=lambda: 0.5,
            call_later=self.clock.call_later,
            **given,
        )
        self.backlog = Backlog(
            self.lifecycle,
            self.queue,
            self.memory,
            self,
            self.contents if contents else None,
            now=self.clock.now,
            call_later=self.clock.call_later,
            near=near,
            held=held,
        )
        intake = Intake(self.store, self.lifecycle, code_of=lambda _: "314159")
        self.running = asyncio.ensure_future(self.backlog.run(intake.take_up, intake.resume))

    def notify(self, event: Event) -> None:
        """Keep the event: this is the observer, too."""
        self.events.append(event)

    def submit(self, name: str, **terms: Any) -> Job:
        """Submit a guaranteed mail that the store keeps."""
        job = make_job(name, deadline=terms.pop("deadline", NOW + 60), **terms)
        self.contents.entries[name] = job.entry()
        self.backlog.submit(job)
        return job

    def leave(self, name: str, priority: Priority = Priority.NORMAL, deadline: float = NOW + 60) -> None:
        """Have a mail that an earlier process has left."""
        self.contents.entries[name] = make_job(name, deadline=deadline, priority=priority).entry()
        self.contents.earlier.append(Left(name, priority, deadline))


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A backlog that runs."""
    rig = Rig()
    yield rig
    rig.running.cancel()
    await asyncio.gather(rig.running, return_exceptions=True)


def _taken(rig: Rig) -> list[str]:
    return [rig.queue.get_nowait().id for _ in range(rig.queue.qsize())]


async def _settled() -> None:
    """Let the backlog do all that it can do now."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_mails_beyond_the_mark_wait_in_the_store(rig: Rig) -> None:
    """Mails up to the high-water mark are queued; those beyond take a place, some octets, and no job."""
    jobs = [rig.submit(f"m{number}") for number in range(5)]
    assert [job.id for job in rig.lifecycle.jobs.values()] == ["m0", "m1"]
    assert (len(rig.backlog), rig.places.taken) == (3, 5)
    assert rig.memory.unsettled == jobs[0].octets + jobs[1].octets + 3 * WAITING_OCTETS
    assert rig.backlog.waiting() == {"urgent": 0, "normal": 5, "bulk": 0}
    assert repr(rig.backlog).startswith("<Backlog 3 waiting, 0 wanted, ")
    assert [event.mail.id for event in rig.events if isinstance(event, MailAccepted)] == [f"m{n}" for n in range(5)]


async def test_some_hundred_mails_stay_in_memory() -> None:
    """Above the high-water mark too, as many mails as `near` says are queued at once, unless they are large."""
    rig = Rig(near=5)
    for number in range(7):
        rig.submit(f"m{number}")
    assert (len(rig.lifecycle.jobs), len(rig.backlog)) == (5, 2)
    assert _taken(rig) == [f"m{number}" for number in range(5)]
    await _settled()
    assert _taken(rig) == ["m5", "m6"]
    rig.memory.unsettled += 16 << 20
    for number in range(3):
        rig.submit(f"n{number}")
    assert (rig.queue.qsize(), len(rig.backlog)) == (2, 1)
    rig.running.cancel()


async def test_a_store_without_contents() -> None:
    """Where content stays in memory every mail is queued at once, and nothing is recalled."""
    rig = Rig(contents=False)
    for number in range(5):
        rig.submit(f"m{number}")
    await rig.backlog.recall("m4")
    await rig.running
    assert len(rig.lifecycle.jobs) == 5
    assert [jobs async for jobs in rig.backlog.jobs()] == []


async def test_mails_come_back_as_the_queue_empties(rig: Rig) -> None:
    """Waiting mails come back in their order, whole, and are announced no second time."""
    for number in range(6):
        rig.submit(f"m{number}", source="tcp:1")
    names = []
    for _ in range(6):
        job = await asyncio.wait_for(rig.queue.get(), 20)
        names.append(job.id)
        assert (job.source, job.turn, job.envelope.content) == ("tcp:1", "tcp:1", job.id.encode())
    assert names == [f"m{number}" for number in range(6)]
    assert (len(rig.backlog), rig.places.taken) == (0, 6)
    assert sum(isinstance(event, MailAccepted) for event in rig.events) == 6


async def test_a_later_mail_does_not_overtake(rig: Rig) -> None:
    """While mails of its lane wait in the store, a new one waits behind them, also below the high-water mark."""
    for number in range(4):
        rig.submit(f"m{number}")
    assert _taken(rig) == ["m0", "m1"]
    rig.submit("late")
    rig.submit("urgent", priority=Priority.URGENT)
    assert _taken(rig) == ["urgent"]
    await _settled()
    assert _taken(rig) == ["m2", "m3", "late"]


async def test_sources_take_turns(rig: Rig) -> None:
    """A source with one waiting mail need not wait for all of another's."""
    for number in range(200):
        rig.submit(f"a{number}", source="a")
    rig.submit("b", source="b")
    _taken(rig)
    await _settled()
    [first] = rig.contents.reads
    assert first[:3] == ["a2", "b", "a3"]


async def test_a_call_takes_a_mail_up_before_its_turn(rig: Rig) -> None:
    """A mail that is recalled has its job at once, and comes once."""
    for number in range(200):
        rig.submit(f"m{number}")
    await asyncio.gather(*(rig.backlog.recall("m150") for _ in range(3)))
    job = rig.lifecycle.find("m150")
    assert job is not None
    assert rig.contents.reads == [["m150"]]
    await rig.backlog.recall("unknown")
    rig.lifecycle.cancel(job)
    names: list[str] = []
    while len(names) < 199:
        names.append((await asyncio.wait_for(rig.queue.get(), 20)).id)
    assert names == [f"m{number}" for number in range(200) if number != 150]


async def test_a_waiting_mail_expires_on_time(rig: Rig) -> None:
    """A mail whose deadline passes while it waits in the store settles as EXPIRED, and no other does."""
    rig.submit("m0")
    rig.submit("m1")
    for number in range(3):
        rig.submit(f"late{number}", deadline=NOW + 30 - number)
    rig.clock.advance(29.5)
    await _settled()
    rig.clock.advance(0.1)
    assert [(mail.id, mail.state) for mail in rig.store.settled] == [
        ("late2", MailState.EXPIRED),
        ("late1", MailState.EXPIRED),
    ]
    assert len(rig.backlog) == 1


async def test_mails_of_an_earlier_process_wait_too(caplog: pytest.LogCaptureFixture) -> None:
    """The mails that a process left are counted once, urgent ones come first, and all are announced as they come."""
    rig = Rig()
    for number in range(400):
        rig.leave(f"n{number}")
    rig.leave("u", Priority.URGENT)
    with caplog.at_level(logging.INFO, "otpmail"):
        await rig.backlog.recall("n399")
    assert [record.getMessage() for record in caplog.records] == ["401 accepted mails taken up from the store"]
    assert rig.places.taken == 401
    await _settled()
    assert _taken(rig)[0] == "u"
    assert {event.mail.id for event in rig.events if isinstance(event, MailAccepted)} >= {"u", "n0", "n399"}
    rig.running.cancel()


async def test_a_mail_that_can_not_be_read_stays(caplog: pytest.LogCaptureFixture) -> None:
    """A mail whose content can't be read is left to the store, the log says so, and the others go on."""
    rig = Rig()
    rig.leave("a")
    rig.leave("b")
    del rig.contents.entries["a"]
    await rig.backlog.recall("a")
    assert rig.lifecycle.find("a") is None
    await _settled()
    assert _taken(rig) == ["b"]
    assert "1 accepted mail can't be read; left in the store: no a" in caplog.text
    assert (len(rig.backlog), rig.places.taken) == (0, 1)
    rig.running.cancel()


async def test_a_store_that_is_down_for_a_moment(rig: Rig) -> None:
    """Mails that can't be read now are read again, in their order."""
    for number in range(4):
        rig.submit(f"m{number}")
    rig.contents.down = 2
    _taken(rig)
    names = [(await asyncio.wait_for(rig.queue.get(), 20)).id for _ in range(2)]
    assert names == ["m2", "m3"]


async def test_a_call_does_not_wait_for_a_store_that_is_down(rig: Rig) -> None:
    """A mail that a call needs while the store is down is UNAVAILABLE, and comes once the store is back."""
    for number in range(5):
        rig.submit(f"m{number}")
    rig.contents.down = 1
    for error in await asyncio.wait_for(
        asyncio.gather(*(rig.backlog.recall("m4") for _ in range(2)), return_exceptions=True), 20
    ):
        assert isinstance(error, Unavailable)
    await asyncio.wait_for(rig.backlog.recall("m4"), 20)
    assert rig.lifecycle.find("m4") is not None
    assert rig.contents.reads == [["m4"]]


async def test_a_stop_leaves_waiting_mails_to_the_store(rig: Rig) -> None:
    """A stop counts them as kept, accepts no more, and ends the wait of those that recall one."""
    for number in range(5):
        rig.submit(f"m{number}")
    rig.contents.down = 1000
    recalling = asyncio.ensure_future(rig.backlog.recall("m4"))
    await _settled()
    closed = rig.backlog.close()
    assert (closed.kept, closed.failed, closed.lost) == (5, 0, 0)
    assert rig.store.settled == []
    with pytest.raises(Unavailable):
        await recalling
    with pytest.raises(Unavailable):
        rig.submit("m5")
    await asyncio.wait_for(rig.running, 20)
    await rig.backlog.recall("m3")


async def test_a_drain_waits_for_the_store_too(rig: Rig) -> None:
    """All accepted mails have settled only when none waits in the store."""
    for number in range(4):
        rig.submit(f"m{number}")
    drained = asyncio.ensure_future(rig.backlog.drained())
    for _ in range(4):
        assert not drained.done()
        job = await asyncio.wait_for(rig.queue.get(), 20)
        rig.lifecycle.cancel(job)
        await _settled()
    await asyncio.wait_for(drained, 20)


async def test_waiting_mails_are_listed_without_content(rig: Rig) -> None:
    """A list has the mails that wait, with their recipients and without their content."""
    for number in range(3):
        rig.submit(f"m{number}")
    [[job]] = [jobs async for jobs in rig.backlog.jobs()]
    assert (job.id, job.envelope.recipients, job.envelope.content) == ("m2", ("ada@x.org",), b"")
    assert rig.lifecycle.find("m2") is None


async def test_deadlines_of_mails_that_left_are_dropped(rig: Rig) -> None:
    """A backlog that is never empty keeps no more deadlines than twice the mails that wait, and a thousand."""
    rig.submit("m0")
    rig.submit("m1")
    for number in range(5_000):
        rig.submit(f"n{number}", deadline=NOW + 1e6)
    for _ in range(4_990):
        await asyncio.wait_for(rig.queue.get(), 20)
    await _settled()
    assert len(rig.backlog) < 200
    assert len(rig.backlog.deadlines) <= 2 * len(rig.backlog) + 1_000


async def test_some_mails_are_not_read_again() -> None:
    """Mails that wait in memory come back in their turn without being read, and count in the budget meanwhile."""
    rig = Rig(held=2)
    jobs = [rig.submit(f"m{number}") for number in range(6)]
    held = jobs[2:4]
    waiting = 4 * WAITING_OCTETS
    assert rig.memory.unsettled == sum(job.octets for job in jobs[:4]) + waiting
    taken = [await asyncio.wait_for(rig.queue.get(), 20) for _ in range(6)]
    assert [job.id for job in taken] == [f"m{number}" for number in range(6)]
    assert [job in jobs for job in taken] == [True] * 4 + [False] * 2
    assert rig.contents.reads == [["m4", "m5"]]
    assert sum(isinstance(event, MailAccepted) for event in rig.events) == 6
    assert rig.memory.unsettled == sum(job.octets for job in jobs)
    assert all(rig.lifecycle.find(job.id) is job for job in held)
    rig.running.cancel()


async def test_a_mail_in_memory_is_taken_up_before_its_turn() -> None:
    """A mail that waits in memory has its job once it is recalled, or once its deadline passes, as any other."""
    rig = Rig(held=10)
    for number in range(2):
        rig.submit(f"m{number}")
    recalled, late = rig.submit("recalled"), rig.submit("late", deadline=NOW + 30)
    await rig.backlog.recall("recalled")
    assert rig.lifecycle.find("recalled") is recalled
    rig.clock.advance(30.1)
    await _settled()
    rig.clock.advance(0.1)
    assert [mail.id for mail in rig.store.settled] == [late.id]
    assert rig.contents.reads == []
    rig.running.cancel()
