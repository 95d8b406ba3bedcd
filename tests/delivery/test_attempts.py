"""Attempts that a store notes first: which, what a crash may have sent, and the mails over which processes end."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from delivery.fakes import NOW, Clock, Store, limits, make_job
from otpmail.delivery.attempts import MOST_DEATHS
from otpmail.delivery.dispatch import Dispatcher
from otpmail.delivery.intake import Intake
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.ownership import Ownership
from otpmail.delivery.queue import MailQueue
from otpmail.delivery.waiters import Waiters
from otpmail.errors import ConnectionLost, Unavailable
from otpmail.events import ALL_EVENTS, Event
from otpmail.model import MailState, RecipientResult
from otpmail.store.base import Entry, Progress


class Rig:
    """A lifecycle that takes up mails from a durable store, and a worker in the test's hands."""

    event_types = ALL_EVENTS

    def __init__(self, store: Store | None = None, **options: Any) -> None:
        self.clock, self.queue = Clock(), MailQueue()
        self.store = store or Store(self.clock.now, durable=True)
        self.lifecycle = Lifecycle(
            Dispatcher(self.queue),
            self.store,
            Waiters(),
            self,
            random=lambda: 0.5,
            call_later=self.clock.call_later,
            **limits() | options,
        )

    def notify(self, event: Event) -> None:
        """Ignore the event: this is the observer, too."""

    async def take_up(self, *entries: Entry) -> None:
        """Have these mails arrive."""
        self.store.arriving = [entries]
        await Intake(self.store, self.lifecycle, code_of=lambda _: "").run()

    def started(self) -> list[Job]:
        """Take all jobs that wait, and return those that may be sent."""
        jobs = [self.queue.get_nowait() for _ in range(self.queue.qsize())]
        return [job for job in jobs if self.lifecycle.start(job)]

    async def begin(self, *jobs: Job) -> list[Job]:
        """Have the store note the attempts."""
        return await self.lifecycle.begin(jobs)

    async def beginning(self) -> asyncio.Task[list[Job]]:
        """Start all jobs that wait, and have the store note them, which it does once `store.begins` is set."""
        self.store.begins.clear()
        beginning = asyncio.create_task(self.begin(*self.started()))
        await asyncio.sleep(0)
        return beginning

    def ended(self) -> dict[str, str]:
        """Return the states of the mails that have settled."""
        return {mail.id: mail.state.name for mail in self.store.settled}


def _entry(name: str, *, begun: bool = False, deaths: int = 0, orphaned: bool = True) -> Entry:
    entry = make_job(name, deadline=NOW + 600).entry()
    return replace(entry, progress=replace(entry.progress, begun=begun, deaths=deaths), orphaned=orphaned)


def _taken(job: Job) -> tuple[RecipientResult, ...]:
    return tuple(RecipientResult(address, 250) for address in job.offered)


# Which attempts are noted.


@pytest.mark.parametrize(
    ("on_uncertain", "durable", "guaranteed", "is_noted"),
    [
        ("fail", True, True, True),
        ("fail", True, False, False),
        ("fail", False, True, False),
        ("retry", True, True, False),
    ],
)
async def test_which_new_mails_are_noted(on_uncertain: str, durable: bool, guaranteed: bool, is_noted: bool) -> None:  # noqa: FBT001
    """A new mail is noted where no second copy may be sent and the store has it, and no other mail is."""
    rig = Rig(Store(durable=durable), on_uncertain=on_uncertain)
    rig.lifecycle.submit(job := make_job(deadline=NOW + 60, guaranteed=guaranteed))
    assert job.is_noted_first is is_noted


@pytest.mark.parametrize(("orphaned", "is_noted"), [(True, True), (False, False)])
async def test_mails_of_a_process_that_was_killed_are_noted(orphaned: bool, is_noted: bool) -> None:  # noqa: FBT001
    """A mail that a killed process left is noted, and counts as a copy; one that was released is neither."""
    rig = Rig()
    await rig.take_up(_entry("a", orphaned=orphaned))
    [job] = rig.started()
    assert (job.is_noted_first, job.deaths, job.copies, job.uncertain) == (is_noted, is_noted, is_noted, frozenset())


async def test_an_attempt_is_noted_and_the_note_taken_back() -> None:
    """The store has the note before a mail is sent, and the progress without it once the mail waits again."""
    rig = Rig()
    await rig.take_up(_entry("a"))
    [job] = rig.started()
    assert await rig.begin(job) == [job]
    [(_, begun)] = rig.store.progress
    assert begun == Progress(pending=("ada@x.org",), copies=1, deaths=1, begun=True)
    rig.lifecycle.connection_lost(job, ConnectionLost("gone"))
    [(_, after)] = rig.store.progress[1:]
    assert (after.begun, after.deaths, after.losses, after.pending) == (False, 1, 1, begun.pending)
    [again] = rig.started()
    assert await rig.begin(again) == [job]
    rig.lifecycle.replied(job, _taken(job))
    assert rig.ended() == {"a": "RELAYED"}
    assert rig.store.progress[2:] == [("a", replace(after, begun=True))]


async def test_a_job_that_ends_while_the_store_writes_is_not_sent() -> None:
    """A stop lets go of a job whose attempt is being noted, and it is not sent after that."""
    rig = Rig()
    await rig.take_up(_entry("a"), _entry("b"))
    beginning = await rig.beginning()
    rig.lifecycle.close()
    rig.store.begins.set()
    assert await beginning == []


class AwayStore(Store):
    """A store that takes no changes."""

    is_away = True

    async def begin_attempts(self, progresses: Any) -> None:
        """Fail while it is down."""
        if self.is_away:
            raise Unavailable("away", retry_after=2.0)
        await super().begin_attempts(progresses)


async def test_nothing_is_sent_without_the_note() -> None:
    """While the store is down its mails wait, and they go on once it is back."""
    rig = Rig(store := AwayStore(durable=True))
    await rig.take_up(_entry("a"))
    [job] = rig.started()
    assert await rig.begin(job) == []
    assert (job.state, rig.queue.qsize()) == (MailState.QUEUED, 0)
    rig.clock.advance(2.0)
    store.is_away = False
    [again] = rig.started()
    assert await rig.begin(again) == [job]


async def test_a_note_is_taken_back_where_the_fence_falls() -> None:
    """Mails that were noted, and are held up since another process may have them, are noted as not begun."""
    rig = Rig()
    await rig.take_up(_entry("a"), _entry("b"))
    beginning = await rig.beginning()
    rig.store.is_ours = False
    rig.store.begins.set()
    assert await beginning == []
    noted = {mail_id: progress.begun for mail_id, progress in rig.store.progress}
    assert noted == {"a": False, "b": False}
    assert rig.started() == []
    rig.store.is_ours = True
    rig.lifecycle.fence.resume()
    assert [job.id for job in rig.started()] == ["a", "b"]


async def test_a_mail_that_is_taken_over_while_the_store_writes_is_not_sent() -> None:
    """A mail that another process has by now is let go, also where this one may send again by the end of the write."""
    rig = Rig()
    await rig.take_up(_entry("a"), _entry("b"))
    beginning = await rig.beginning()
    rig.store.is_ours = False
    assert Ownership(rig.lifecycle, Waiters()).drop(["a"]) == []  # it counts as in flight
    rig.store.is_ours = True
    rig.store.begins.set()
    assert [job.id for job in await beginning] == ["b"]
    assert (list(rig.lifecycle.jobs), rig.queue.qsize(), rig.ended()) == (["b"], 0, {})


async def test_a_mail_whose_deadline_passes_while_the_store_writes_is_not_sent() -> None:
    """A mail that is too late once the store has its note expires, and no relay gets it."""
    rig = Rig()
    await rig.take_up(_entry("a"))
    beginning = await rig.beginning()
    rig.clock.time = NOW + 601
    rig.store.begins.set()
    assert await beginning == []
    assert (rig.started(), rig.ended()) == ([], {"a": "EXPIRED"})


# After a crash.


async def test_a_mail_that_was_begun_is_not_copied() -> None:
    """With EMAIL_ON_UNCERTAIN=fail a begun mail ends as UNCERTAIN, with words, and one that was not begun is sent."""
    rig = Rig(on_uncertain="fail")
    await rig.take_up(_entry("a", begun=True), _entry("b"))
    [mail] = rig.store.settled
    assert (mail.id, mail.state.name, mail.recipients[0].code) == ("a", "UNCERTAIN", 0)
    assert mail.recipients[0].reply == "the service ended while it was sending this mail, so the relay may have it"
    assert [(job.id, job.copies) for job in rig.started()] == [("b", 0)]
    assert rig.store.undecided == []


async def test_a_begun_mail_is_uncertain_until_the_relay_accepts_it() -> None:
    """With EMAIL_ON_UNCERTAIN=retry a begun mail goes again, and a rejection leaves it UNCERTAIN."""
    rig = Rig()
    await rig.take_up(_entry("a", begun=True, deaths=1))
    [job] = rig.started()
    assert (job.deaths, job.copies, job.uncertain) == (2, 1, frozenset({"ada@x.org"}))
    rig.lifecycle.replied(job, (RecipientResult("ada@x.org", 550),))
    assert rig.ended() == {"a": "UNCERTAIN"}


async def test_a_mail_over_which_processes_ended_is_parked() -> None:
    """A mail that was in flight at the end of three processes is FAILED, with words, and keeps its request id."""
    rig = Rig()
    await rig.take_up(_entry("a", begun=True, deaths=MOST_DEATHS - 1))
    [mail] = rig.store.settled
    assert (mail.id, mail.state.name) == ("a", "FAILED")
    assert mail.recipients[0].reply == "not sent again: 3 times the service ended while it was sending this mail"
    assert (rig.store.undecided, rig.started(), len(rig.lifecycle)) == ([], [], 0)
    assert rig.store.failed["a"].envelope.content == b"a"


async def test_mails_that_only_waited_are_never_parked() -> None:
    """However often a process is killed, a mail that waited in its queue has one death at most."""
    entry = _entry("a")
    for _ in range(10):
        rig = Rig()
        await rig.take_up(entry)
        job = rig.lifecycle.jobs["a"]
        assert job.deaths == 1
        entry = replace(entry, progress=job.progress)


# Suspects.


def _relay(rig: Rig, job: Job) -> None:
    rig.lifecycle.replied(job, _taken(job))


def _defer(rig: Rig, job: Job) -> None:
    rig.lifecycle.replied(job, (RecipientResult("ada@x.org", 451),))


def _lose(rig: Rig, job: Job) -> None:
    rig.lifecycle.connection_lost(job, ConnectionLost("gone"))


def _fail(rig: Rig, job: Job) -> None:
    rig.lifecycle.replied(job, (RecipientResult("ada@x.org", 550),))


@pytest.mark.parametrize("end", [_relay, _defer, _lose, _fail])
async def test_suspects_are_sent_one_at_a_time(end: Callable[[Rig, Job], None]) -> None:
    """Of the mails with two deaths one is in flight, and the next goes when its attempt has ended in whatever way."""
    rig = Rig()
    suspects = [_entry(name, begun=True, deaths=1) for name in "abc"]
    await rig.take_up(*suspects, _entry("d"))
    first, other = rig.started()
    assert (first.id, other.id) == ("a", "d")
    assert rig.started() == []
    await rig.begin(first)
    end(rig, first)
    waiting = rig.started()
    assert [job.id for job in waiting] == ["b"]
    _relay(rig, waiting[0])
    assert "c" in [job.id for job in rig.started()]


async def test_a_suspect_that_is_cancelled_while_it_waits() -> None:
    """A suspect that settles while another one is being sent is not sent, and holds up nobody."""
    rig = Rig()
    await rig.take_up(*[replace(_entry(name), progress=Progress(pending=("ada@x.org",), deaths=2)) for name in "abc"])
    [first] = rig.started()
    rig.lifecycle.cancel(rig.lifecycle.jobs["b"])
    _relay(rig, first)
    assert [job.id for job in rig.started()] == ["c"]
    assert rig.ended() == {"b": "CANCELLED", "a": "RELAYED"}
