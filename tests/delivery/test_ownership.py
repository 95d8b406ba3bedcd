"""Mails of a store that several processes share: held up, dropped, adopted again, cancelled for another process."""

import asyncio
from typing import Any

import pytest

from delivery.fakes import NOW, Store, limits, make_job
from otpmail.delivery.closing import TAKEN_OVER
from otpmail.delivery.dispatch import Dispatcher
from otpmail.delivery.intake import Intake
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.ownership import Ownership
from otpmail.delivery.queue import MailQueue
from otpmail.delivery.waiters import Outcome, Waiters
from otpmail.errors import ConnectionLost, Unavailable
from otpmail.events import ALL_EVENTS, Event
from otpmail.model import Mail, MailState, RecipientResult


class Rig:
    """A lifecycle with a durable store, which may send what the test says."""

    event_types = ALL_EVENTS

    def __init__(self, *, durable: bool = True) -> None:
        self.queue = MailQueue()
        self.store = Store(durable=durable)
        self.waiters = Waiters()
        self.lifecycle = Lifecycle(
            Dispatcher(self.queue), self.store, self.waiters, self, random=lambda: 0.5, **limits()
        )
        self.ownership = Ownership(self.lifecycle, self.waiters)
        self.ends: dict[str, Outcome] = {}

    def notify(self, event: Event) -> None:
        """Be the observer, too."""

    def submit(self, name: str, **options: Any) -> Job:
        """Submit a mail, whose end is noted in `ends`."""
        job = make_job(name, deadline=NOW + 60, **options)
        self.lifecycle.submit(job)
        self.waiters.add_waiter(job, self._note)
        return job

    def take(self) -> tuple[Job, bool]:
        """Be the worker that takes the next job; returns it, and whether it may be sent."""
        job = self.queue.get_nowait()
        started = self.lifecycle.start(job)
        self.queue.task_done()
        return job, started

    def _note(self, job: Job, outcome: Outcome) -> None:
        self.ends[job.id] = outcome


REFUSED = (RecipientResult("ada@x.org", 451, "4.3.0", "later"),)


async def test_mails_of_the_store_are_held_up_while_they_may_be_anothers() -> None:
    """Guaranteed mails, and those with a request id, wait while the store is not sure, and go on in their order."""
    rig = Rig()
    rig.store.is_ours = False
    rig.submit("a")
    rig.submit("b", guaranteed=False, request_id="r")
    rig.submit("c", guaranteed=False)
    assert [(job.id, started) for job, started in (rig.take(), rig.take(), rig.take())] == [
        ("a", False),
        ("b", False),
        ("c", True),
    ]
    assert rig.queue.empty()
    rig.store.is_ours = True
    rig.submit("d")
    rig.ownership.resume()
    assert [rig.take()[0].id for _ in range(3)] == ["a", "b", "d"]


async def test_a_started_mail_that_waits_is_asked_about_again() -> None:
    """A started mail that has waited is sent only while it is ours and in time; otherwise it is queued or let go."""
    rig = Rig()
    ours, lost, doubtful, late = [rig.submit(name) for name in ("ours", "lost", "doubtful", "late")]
    assert all(rig.take()[1] for _ in range(4))
    assert rig.lifecycle.may_send(ours)
    assert rig.ownership.drop(["lost"]) == []
    assert not rig.lifecycle.may_send(lost)
    assert isinstance(rig.ends["lost"], Unavailable)
    assert not rig.lifecycle.may_send(lost)  # it is gone
    rig.store.is_ours = False
    assert not rig.lifecycle.may_send(doubtful)
    assert rig.take() == (doubtful, False)
    rig.store.is_ours = True
    late.deadline = NOW
    assert not rig.lifecycle.may_send(late)
    assert rig.take() == (late, False)
    assert late.state is MailState.EXPIRED


async def test_a_store_that_is_not_shared_holds_nothing_up() -> None:
    """A store that keeps nothing beyond the process holds no mail up."""
    rig = Rig(durable=False)
    rig.store.is_ours = False
    rig.submit("a")
    assert rig.take()[1]


async def test_a_mail_that_is_held_up_settles_as_any_other() -> None:
    """A mail that is held up can be cancelled, and is not put into the queue afterwards."""
    rig = Rig()
    rig.store.is_ours = False
    job = rig.submit("a")
    rig.take()
    rig.lifecycle.cancel(job)
    rig.ownership.resume()
    assert rig.queue.empty()
    assert rig.store.settled[0].state is MailState.CANCELLED


async def test_mails_that_another_process_has_are_dropped() -> None:
    """A dropped mail leaves the queue without an end, and those who wait for it get Unavailable."""
    rig = Rig()
    rig.submit("a")
    rig.submit("b")
    assert rig.ownership.drop(["a", "nope"]) == ["a"]
    assert isinstance(rig.ends["a"], Unavailable)
    assert str(rig.ends["a"]) == TAKEN_OVER
    assert rig.store.settled == []
    assert rig.take()[0].id == "b"
    assert len(rig.lifecycle) == 1


async def test_another_process_watches_a_mail() -> None:
    """A watcher for another process sees the present state and each one that follows, until it is removed."""
    rig = Rig()
    job = rig.submit("a")
    states: asyncio.Queue[Mail | None] = asyncio.Queue()
    stop = rig.ownership.watch("a", states)
    rig.take()
    rig.lifecycle.replied(job, REFUSED)
    stop()
    assert rig.waiters.watchers == {}
    seen = [states.get_nowait() for _ in range(states.qsize())]
    assert [(mail.state, mail.attempts) for mail in seen if mail] == [
        (MailState.QUEUED, 0),
        (MailState.SENDING, 0),
        (MailState.QUEUED, 1),
    ]


async def test_a_watched_mail_that_goes_on_elsewhere() -> None:
    """A watcher for another process gets None for a mail that is not here, or that this process lets go of."""
    rig = Rig()
    rig.submit("a")
    states: asyncio.Queue[Mail | None] = asyncio.Queue()
    rig.ownership.watch("a", states)
    rig.ownership.drop(["a"])
    rig.ownership.watch("a", states)()
    seen = [states.get_nowait() for _ in range(states.qsize())]
    assert [mail and mail.state for mail in seen] == [MailState.QUEUED, None, None]


@pytest.mark.parametrize("ends", ["deferred", "lost", "requeued"])
async def test_a_mail_in_flight_is_dropped_once_it_is_not(ends: str) -> None:
    """A mail that was in flight when another process took it settles by the relay's reply, and is not tried again."""
    rig = Rig()
    rig.submit("a")
    job, _ = rig.take()
    assert rig.ownership.drop(["a"]) == []
    assert rig.ends == {}
    if ends == "deferred":
        rig.lifecycle.replied(job, REFUSED)
    elif ends == "lost":
        rig.lifecycle.connection_lost(job, ConnectionLost("cut", not_started=True))
    else:
        rig.lifecycle.requeue(job, REFUSED)
    assert str(rig.ends["a"]) == TAKEN_OVER
    assert rig.queue.empty()
    assert len(rig.lifecycle) == 0
    assert [mail_id for mail_id, _ in rig.store.progress] == ["a"]


async def test_a_mail_in_flight_settles_though_another_process_has_it() -> None:
    """The relay's acceptance of a mail in flight is its end here, also where another replica has it by then."""
    rig = Rig()
    rig.submit("a")
    job, _ = rig.take()
    rig.ownership.drop(["a"])
    rig.lifecycle.replied(job, (RecipientResult("ada@x.org", 250),))
    assert [mail.state for mail in rig.store.settled] == [MailState.RELAYED]


async def test_a_mail_in_flight_that_arrives_again_goes_on() -> None:
    """A mail in flight that the store gives back to this process is retried here, and there is no second job of it."""
    rig = Rig()
    rig.submit("a")
    job, _ = rig.take()
    rig.ownership.drop(["a"])
    rig.store.arriving = [[job.entry()]]
    await Intake(rig.store, rig.lifecycle, code_of=lambda _: "").run()
    assert rig.lifecycle.find("a") is job
    assert rig.queue.empty()
    rig.lifecycle.connection_lost(job, ConnectionLost("cut", not_started=True))
    assert rig.take() == (job, True)


async def test_a_mail_is_cancelled_for_another_process() -> None:
    """A waiting mail is cancelled, one in flight is not, and one that has settled needs no cancelling."""
    rig = Rig()
    rig.submit("a")
    rig.take()
    rig.submit("b")
    assert not rig.ownership.cancel("a")
    assert rig.ownership.cancel("b")
    assert rig.ownership.cancel("nope")
    assert [mail.id for mail in rig.store.settled] == ["b"]


async def test_an_open_mail_is_there_to_be_written_again() -> None:
    """The store gets the present state of an open mail, and nothing for one that has settled."""
    rig = Rig()
    job = rig.submit("a")
    assert rig.ownership.entry("a") == job.entry()
    rig.lifecycle.cancel(job)
    assert rig.ownership.entry("a") is None


async def test_watchers_learn_that_a_mail_goes_on_elsewhere() -> None:
    """A watcher of a dropped mail gets None, so that it can ask the store from then on."""
    rig = Rig()
    states: asyncio.Queue[Any] = asyncio.Queue()
    rig.waiters.add_watcher(rig.submit("a"), states)
    rig.ownership.drop(["a"])
    assert states.get_nowait() is None
