"""Replies that suppress and release addresses, and recipients who are left out."""

import asyncio

import pytest

from delivery.fakes import Clock, Store, limits, make_job, suppressions
from otpmail.delivery.dispatch import Dispatcher
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.queue import MailQueue
from otpmail.delivery.suppressions import whose
from otpmail.delivery.waiters import Waiters
from otpmail.events import ALL_EVENTS, AddressSuppressed, Event, RecipientSuppressed, SuppressionLifted
from otpmail.model import MailState, Priority, RecipientResult

ADA, BOB = "ada@x.org", "bob@x.org"
DAY = 86_400


class Rig:
    """A lifecycle whose relay and clock are in the test's hands."""

    event_types = ALL_EVENTS

    def __init__(self) -> None:
        self.clock, self.queue, self.events = Clock(), MailQueue(), list[Event]()
        self.store = Store(self.clock.now)
        self.suppressions = suppressions(self, self.clock.now)
        options = limits() | {"suppressions": self.suppressions}
        self.lifecycle = Lifecycle(
            Dispatcher(self.queue),
            self.store,
            Waiters(),
            self,
            random=lambda: 0.5,
            call_later=self.clock.call_later,
            **options,
        )

    def notify(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)

    def submit(self, name: str, *recipients: str, priority: Priority = Priority.NORMAL) -> Job:
        """Submit a mail as `mail.service` does."""
        job = make_job(name, *recipients, priority=priority, deadline=self.clock.time + 90 * DAY)
        job.create_time = self.clock.time
        self.suppressions.leave_out(job)
        self.lifecycle.submit(job)
        return job

    def reply(self, job: Job, code: int, enhanced: str, *, of_address: bool = True, words: str = "said") -> None:
        """Send the job, and have the relay say that about each pending recipient."""
        assert self.queue.get_nowait() is job
        self.queue.task_done()
        assert self.lifecycle.start(job)
        results = [RecipientResult(one, code, enhanced, words, is_about_address=of_address) for one in job.pending]
        self.lifecycle.replied(job, tuple(results))

    def is_suppressed(self, address: str, *, bulk: bool = False) -> bool:
        """Whether mails to the address are kept back."""
        return self.suppressions.find("shop", address, bulk=bulk) is not None

    def heard(self) -> list[str]:
        """Return the kinds of events about addresses, and forget them."""
        kinds = AddressSuppressed | SuppressionLifted | RecipientSuppressed
        heard = [type(event).__name__ for event in self.events if isinstance(event, kinds)]
        self.events.clear()
        return heard


async def test_a_refusal_suppresses() -> None:
    """A refused address is suppressed at once; its next mail settles in the step that accepts it."""
    rig = Rig()
    rig.reply(rig.submit("m1", ADA), 550, "5.1.1")
    assert rig.is_suppressed("ada@X.org")
    assert not rig.is_suppressed(BOB)
    assert rig.heard() == ["AddressSuppressed"]
    job = rig.submit("m2", ADA)
    assert (job.state, job.mail.recipients[0].suppression) == (MailState.FAILED, rig.suppressions.find("shop", ADA))
    assert rig.store.settled[-1] is job.mail
    assert rig.store.undecided == []  # a repeated request id has this answer
    assert rig.heard() == ["RecipientSuppressed"]
    assert len(rig.lifecycle) == rig.queue.qsize() == 0
    assert rig.lifecycle.places.taken == 0


async def test_a_spelling_that_the_relay_refuses() -> None:
    """A stranger who asks for a code in another spelling, which the relay does not know, keeps no mail of ada@ back."""
    rig = Rig()
    for name, spelling in (("m1", "ADA@x.org"), ("m2", "aDa@x.org")):
        rig.reply(rig.submit(name, spelling), 550, "5.1.1")
        assert rig.is_suppressed(spelling)
        assert not rig.is_suppressed(ADA)
    rig.reply(rig.submit("m3", ADA), 250, "2.1.5")
    assert rig.suppressions.store.count == 0


async def test_spellings_that_take_turns() -> None:
    """A mailbox that does not exist is asked for once in each of two spellings that take turns; each has its event."""
    rig = Rig()
    for name, spelling in (("m1", ADA), ("m2", "ADA@x.org")):
        rig.reply(rig.submit(name, spelling), 550, "5.1.1")
        assert rig.heard() == ["AddressSuppressed"]
    for number in range(4):
        assert rig.submit(f"t{number}", (ADA, "ADA@x.org")[number % 2]).state is MailState.FAILED
    assert rig.queue.qsize() == 0


async def test_no_other_refusal_suppresses() -> None:
    """A code for now, another detail, or a reply in which others have a part, suppresses nobody."""
    rig = Rig()
    for number, (code, enhanced, of_address) in enumerate(
        [(450, "4.1.1", True), (450, "5.1.1", True), (550, "", True), (550, "5.7.1", True), (550, "5.1.1", False)]
    ):
        job = rig.submit(f"m{number}", ADA)
        rig.reply(job, code, enhanced, of_address=of_address)
        if not job.settled:
            rig.lifecycle.cancel(job)
    assert rig.suppressions.store.count == 0
    for enhanced in ("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"):
        rig.reply(rig.submit(enhanced, f"x{enhanced}@x.org"), 550, enhanced)
    assert rig.suppressions.store.count == 6


async def test_no_near_miss_of_a_code_suppresses() -> None:
    """Details next to those that say that an address is gone suppress nobody, nor do those of another class."""
    rig = Rig()
    near = ["5.1.0", "5.1.4", "5.1.5", "5.1.7", "5.1.8", "5.1.9", "5.1.11", "5.1.100", "5.2.0", "5.2.2", "5.2.3"]
    near += ["5.2.4", "5.2.10", "5.2.121", "5.4.1", "5.4.4", "5.4.14", "5.7.0", "5.7.1", "5.7.27", "4.1.1", "2.1.1"]
    for number, enhanced in enumerate(near):
        rig.reply(rig.submit(f"m{number}", f"x{number}@x.org"), 550, enhanced)
    assert rig.suppressions.store.count == 0


async def test_a_code_that_contradicts_its_details() -> None:
    """A code of a command, a sign-in, a host or a quota suppresses nobody, whatever its details are; others do."""
    rig = Rig()
    for code in (500, 502, 503, 504, 521, 530, 534, 535, 538, 552, 555):
        job = rig.submit(f"m{code}", f"x{code}@x.org")
        rig.reply(job, code, "5.1.1")
        if not job.settled:
            rig.lifecycle.cancel(job)
    assert rig.suppressions.store.count == 0
    taken = (501, 550, 551, 553, 554, 556)
    for code in taken:
        rig.reply(rig.submit(f"m{code}", f"x{code}@x.org"), code, "5.1.1")
    assert rig.suppressions.store.count == len(taken)


@pytest.mark.parametrize(
    ("words", "suppresses"),
    [
        ("The user you are trying to contact is receiving mail at a rate that prevents additional messages", False),
        ("User is receiving mail too quickly", False),
        ("Mailbox is full", False),
        ("The mailbox has exceeded its limit", False),
        ("over quota", False),
        ("account temporarily locked", False),
        ("The email account that you tried to reach is disabled.", True),
        ("mailbox disabled, not accepting messages", True),
        ("Mailbox of fullerton@example.org is inactive", True),
    ],
)
async def test_a_mailbox_that_takes_nothing_for_now(words: str, suppresses: bool) -> None:  # noqa: FBT001
    """5.2.1 suppresses an address that is disabled, and none that is full or gets too much: anybody can cause that."""
    rig = Rig()
    rig.reply(rig.submit("m1", ADA), 550, "5.2.1", words=words)
    assert rig.is_suppressed(ADA) == suppresses


async def test_a_delivery_clears() -> None:
    """After the suppression has ended a mail is sent again: accepted, the history ends, refused, a week begins."""
    rig = Rig()
    rig.reply(rig.submit("m1", ADA), 550, "5.1.1")
    rig.clock.advance(DAY)
    rig.reply(rig.submit("m2", ADA), 550, "5.1.1")
    found = rig.suppressions.find("shop", ADA)
    assert found is not None
    assert found.until - found.since == 7 * DAY
    rig.clock.advance(7 * DAY)
    rig.heard()
    rig.reply(rig.submit("m3", ADA), 250, "2.0.0")
    assert rig.heard() == ["SuppressionLifted"]
    assert rig.suppressions.store.find(whose("shop", ADA)) is None
    rig.reply(rig.submit("m4", ADA), 550, "5.1.1")
    found = rig.suppressions.find("shop", ADA)
    assert found is not None
    assert found.until - found.since == DAY


async def test_a_delivery_of_a_mail_in_flight_clears() -> None:
    """A mail that was accepted before the address was suppressed is sent, and clears it if the relay accepts it."""
    rig = Rig()
    first, second, third = [rig.submit(f"m{number}", ADA) for number in range(3)]
    rig.reply(first, 550, "5.1.1")
    rig.reply(second, 550, "5.1.1")
    assert rig.heard() == ["AddressSuppressed"]
    assert rig.is_suppressed(ADA)
    rig.reply(third, 250, "2.0.0")
    assert third.state is MailState.RELAYED
    assert not rig.is_suppressed(ADA)


async def test_others_of_the_mail_go() -> None:
    """Of a mail to several only the suppressed one is left out, and the rest decides how it ends."""
    rig = Rig()
    rig.reply(rig.submit("m1", ADA), 550, "5.1.1")
    job = rig.submit("m2", BOB, ADA)
    assert job.offer.recipients == (BOB,)
    rig.reply(job, 250, "2.0.0")
    assert job.state is MailState.PARTIAL
    assert [result.code for result in job.mail.recipients] == [250, 0]
    job = rig.submit("m3", BOB, ADA)
    rig.lifecycle.cancel(job)
    assert job.state is MailState.CANCELLED


async def test_a_settled_job_has_no_timer() -> None:
    """A mail that settles when it is accepted leaves no timer and no place behind."""
    rig = Rig()
    rig.reply(rig.submit("m1", ADA), 550, "5.1.1")
    rig.submit("m2", ADA)
    await asyncio.wait_for(rig.lifecycle.drained(), 5)
    rig.clock.advance(100 * DAY)
    assert [mail.state for mail in rig.store.settled] == [MailState.FAILED, MailState.FAILED]
