"""The intake: accepted mails that arrive from the store are on their way again, in the store's order."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

import pytest

from delivery.fakes import NOW, Store, limits, make_job
from otpmail.delivery.dispatch import Dispatcher
from otpmail.delivery.intake import Intake
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.queue import MailQueue
from otpmail.delivery.waiters import Waiters
from otpmail.events import ALL_EVENTS, Event, MailAccepted
from otpmail.model import Challenge, IssuedCode, MailState, Priority, RecipientResult
from otpmail.store.base import Entry


class Rig:
    """An intake between a durable store and a lifecycle whose queue nobody empties."""

    event_types = ALL_EVENTS

    def __init__(self, store: Store | None = None) -> None:
        self.queue = MailQueue(high_water=1)
        self.store = store or Store(durable=True)
        self.events: list[Event] = []
        self.lifecycle = Lifecycle(Dispatcher(self.queue), self.store, Waiters(), self, random=lambda: 0.5, **limits())
        self.intake = Intake(self.store, self.lifecycle, code_of=lambda _: "314159")

    def notify(self, event: Event) -> None:
        """Keep the event: this is the observer, too."""
        self.events.append(event)

    def queued(self) -> list[Job]:
        """Take every job out of the queue."""
        return [self.queue.get_nowait() for _ in range(self.queue.qsize())]


def _entry(name: str, priority: Priority = Priority.NORMAL, *, deadline: float = NOW + 60) -> Entry:
    return make_job(name, priority=priority, deadline=deadline, request_id=f"r-{name}").entry(b"f")


async def test_arriving_mails_are_queued_in_order(caplog: pytest.LogCaptureFixture) -> None:
    """Every slice is taken up whole, above the high-water mark too: no limit may refuse an accepted mail."""
    rig = Rig()
    rig.store.arriving = [[_entry("u", Priority.URGENT), _entry("a"), _entry("b")], [_entry("c")]]
    with caplog.at_level(logging.INFO, "otpmail"):
        await rig.intake.run()
    assert [job.id for job in rig.queued()] == ["u", "a", "b", "c"]
    assert repr(rig.intake) == "<Intake 4 mails taken up>"
    assert [record.getMessage()[:16] for record in caplog.records] == ["3 accepted mails", "1 accepted mail "]
    assert [vars(record)["fields"] for record in caplog.records] == [{"mails": 3}, {"mails": 1}]
    assert {vars(record)["event"] for record in caplog.records} == {"mails-taken-up"}
    assert [event.mail.id for event in rig.events if isinstance(event, MailAccepted)] == ["u", "a", "b", "c"]


async def test_a_mail_that_comes_back_in_flight_is_not_taken_up_again(caplog: pytest.LogCaptureFixture) -> None:
    """A mail that this process lost and has again goes on as it is, and no line counts it."""
    rig = Rig()
    rig.store.arriving = [[_entry("a")], [_entry("a"), _entry("b")], [_entry("b")]]
    with caplog.at_level(logging.INFO, "otpmail"):
        await rig.intake.run()
    assert [job.id for job in rig.queued()] == ["a", "b"]
    assert rig.intake.taken_up == 2
    assert [vars(record)["fields"] for record in caplog.records] == [{"mails": 1}, {"mails": 1}]


async def test_a_mail_goes_on_where_it_was() -> None:
    """The intake restores a mail under its id, as guaranteed, and offers only its pending recipients."""
    rig = Rig()
    job = make_job("a", "ada@x.org", "bob@x.org", deadline=NOW + 60)
    job.pending, job.attempts = ("bob@x.org",), 2
    job.results["ada@x.org"] = RecipientResult("ada@x.org", 250)
    rig.store.arriving = [[job.entry()]]
    await rig.intake.run()
    [again] = rig.queued()
    assert rig.lifecycle.find("a") is again
    assert again.guaranteed
    assert (again.offered, again.mail.attempts) == (("bob@x.org",), 2)
    assert [result.code for result in again.mail.recipients] == [250, 0]


async def test_the_mail_of_a_code_gets_its_code_again() -> None:
    """A store keeps no code, so the intake derives it for the mail that holds it: no reply may be repeated with it."""
    rig = Rig()
    issued = IssuedCode(Challenge(bytes(16), "k1", NOW + 60), NOW)
    rig.store.arriving = [
        [make_job("a", "ada@x.org", "bob@x.org", deadline=NOW + 60, issued=issued).entry(), _entry("b")]
    ]
    await rig.intake.run()
    code_mail, other = rig.queued()
    assert (code_mail.envelope.code, other.envelope.code) == ("314159", "")
    code_mail.narrow(("bob@x.org",))
    assert code_mail.offer.code == "314159"


async def test_a_mail_whose_time_was_over_before_it_came_expires() -> None:
    """A mail that arrives after its deadline settles in the store, so that no later start finds it again."""
    rig = Rig()
    rig.store.arriving = [[_entry("a", deadline=NOW - 60)]]
    await rig.intake.run()
    [job] = rig.queued()
    assert not rig.lifecycle.start(job)
    assert job.mail.state is MailState.EXPIRED
    assert rig.store.settled == [job.mail]


class EndlessStore(Store):
    """A store that other processes share: a slice comes when a test puts it there."""

    def __init__(self) -> None:
        super().__init__(durable=True)
        self.slices: asyncio.Queue[Sequence[Entry]] = asyncio.Queue()

    async def arrivals(self) -> AsyncIterator[Sequence[Entry]]:
        """Yield what the test has put, without end."""
        while True:
            yield await self.slices.get()
            self.slices.task_done()


async def test_mails_of_a_process_that_died_come_later() -> None:
    """The intake goes on until it is cancelled, and takes up each slice as it comes."""
    store = EndlessStore()
    rig = Rig(store)
    running = asyncio.create_task(rig.intake.run())
    for number, name in enumerate("ab", 1):
        store.slices.put_nowait([_entry(name)])
        await store.slices.join()
        assert rig.intake.taken_up == number
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
    assert [job.id for job in rig.queued()] == ["a", "b"]


async def test_mails_that_come_while_the_service_stops_stay_in_the_store() -> None:
    """The intake ends without an error, which would end the stop half-way; the mails neither settle nor fail."""
    rig = Rig()
    rig.store.arriving = [[_entry("a")], [_entry("b")]]
    rig.lifecycle.close()
    await rig.intake.run()
    assert rig.intake.taken_up == 0
    assert rig.events == []
    assert rig.store.settled == []


async def test_a_store_without_arrivals() -> None:
    """The intake ends at once where an earlier process left nothing."""
    rig = Rig()
    await rig.intake.run()
    assert rig.intake.taken_up == 0
