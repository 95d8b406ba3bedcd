"""The lifecycle of each accepted mail, step by step, on a clock that a test moves."""

import asyncio
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.fakes import NOW, Clock, Store, limits, make_job
from otpmail.delivery import retry
from otpmail.delivery.closing import Closed
from otpmail.delivery.dispatch import Dispatcher
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.queue import MailQueue
from otpmail.delivery.verdict import MOST_COPIES
from otpmail.delivery.waiters import Outcome, Waiters
from otpmail.errors import ConnectionLost, FailedPrecondition, Unavailable
from otpmail.events import ALL_EVENTS, Event, MailAccepted, MailDeferred, MailSettled
from otpmail.limits.memory import Memory
from otpmail.model import Mail, MailState, RecipientResult
from otpmail.smtp.transaction import GROUP

DAY = 86_400.0
EventT = TypeVar("EventT", bound=Event)


class Rig:
    """A Lifecycle with everything around it in the test's hands."""

    event_types = ALL_EVENTS

    def __init__(self, *, durable: bool = False, **options: Any) -> None:
        self.clock = Clock()
        self.queue = MailQueue()
        self.store = Store(self.clock.now, durable=durable)
        self.waiters = Waiters()
        self.events: list[Event] = []
        self.ends: dict[Job, Outcome] = {}
        all_options = limits() | options
        self.memory: Memory = all_options["memory"]
        self.lifecycle = Lifecycle(
            Dispatcher(self.queue),
            self.store,
            self.waiters,
            self,
            random=lambda: 0.5,
            call_later=self.clock.call_later,
            **all_options,
        )
        self._numbers = itertools.count(1)

    def notify(self, event: Event) -> None:
        """Keep the event: this is the observer, too."""
        self.events.append(event)

    def notified(self, kind: type[EventT]) -> list[EventT]:
        """Return the events of that kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def submit(self, *recipients: str, ttl: float = DAY, guaranteed: bool = True) -> Job:
        """Submit a new mail, whose end is noted in `ends`."""
        job = make_job(f"m{next(self._numbers)}", *recipients, deadline=self.clock.time + ttl, guaranteed=guaranteed)
        self.lifecycle.submit(job)
        self.waiters.add_done_callback(job, self.note_end)
        return job

    def await_(self, job: Job) -> None:
        """Be a call that needs the mail."""
        self.waiters.add_waiter(job, _ignore)

    def take(self, job: Job) -> None:
        """Be the worker that takes the job, and starts to send it."""
        assert self.queue.get_nowait() is job
        self.queue.task_done()
        assert self.lifecycle.start(job)

    def reply(self, job: Job, **codes: int) -> None:
        """Be the relay: reply about each pending recipient, found by the name before the @."""
        results = tuple(RecipientResult(a, codes.get(a.partition("@")[0], 250), "", "said") for a in job.pending)
        self.lifecycle.replied(job, results)

    def settled(self, job: Job) -> Mail:
        """Return the mail, once it has settled; in one way, everywhere."""
        mail = job.mail
        assert self.ends[job] is mail
        assert mail.state.final
        assert mail.settle_time is not None
        assert NOW <= mail.settle_time <= self.clock.time
        assert self.store.settled.count(mail) == 1
        assert [event.mail for event in self.notified(MailSettled) if event.mail.id == mail.id] == [mail]
        assert self.lifecycle.find(mail.id) is None
        return mail

    def note_end(self, job: Job, outcome: Outcome) -> None:
        """Note how a job ended, which must be once."""
        assert job not in self.ends
        self.ends[job] = outcome


def _ignore(_: Job, __: Outcome) -> None:
    """Take no note of the end."""


CERTAIN = ConnectionLost("gone")
UNCERTAIN = ConnectionLost("gone", uncertain=True)


async def test_only_recipients_of_the_lost_transaction_are_uncertain() -> None:
    """A relay takes fewer recipients in one transaction than the mail has: the others were never offered to it."""
    rig = Rig()
    job = rig.submit("ada@x.org", "bob@x.org", guaranteed=False)
    rig.take(job)
    rig.lifecycle.connection_lost(job, ConnectionLost("gone", uncertain=True, offered=("ada@x.org",)))
    assert job.uncertain == {"ada@x.org"}


async def test_a_mail_that_the_relay_accepts_is_relayed() -> None:
    """A mail goes from queued over sending to relayed, then it is in the store and open no longer."""
    rig = Rig()
    job = rig.submit("ada@x.org", "bob@x.org")
    assert rig.lifecycle.find("m1") is job
    assert len(rig.lifecycle) == 1
    assert rig.events == [MailAccepted(job.mail)]
    rig.take(job)
    assert job.mail.state is MailState.SENDING
    rig.reply(job)
    mail = rig.settled(job)
    assert mail.state is MailState.RELAYED
    assert mail.attempts == 1
    assert mail.settle_time == NOW
    assert [result.code for result in mail.recipients] == [250, 250]
    assert len(rig.lifecycle) == 0


async def test_the_fast_path_settles_as_the_full_path() -> None:
    """A mail that is accepted at once ends as one whose recipients are accepted one attempt after the other."""
    rig = Rig()
    fast, full = rig.submit("ada@x.org", "bob@x.org"), rig.submit("ada@x.org", "bob@x.org")
    rig.take(fast)
    rig.reply(fast)
    rig.take(full)
    full.results["ada@x.org"] = RecipientResult("ada@x.org", 250, "", "earlier")  # this alone closes the fast path
    rig.reply(full)
    mails = [rig.settled(job) for job in (fast, full)]
    assert [(mail.state, mail.recipients, mail.attempts, mail.settle_time) for mail in mails] == [
        (MailState.RELAYED, fast.mail.recipients, 1, NOW)
    ] * 2
    assert rig.store.undecided == []


@pytest.mark.parametrize(
    ("codes", "state"),
    [
        ({"ada": 550, "bob": 550}, MailState.FAILED),
        ({"ada": 250, "bob": 550}, MailState.PARTIAL),
        ({"ada": 250, "bob": 250}, MailState.RELAYED),
    ],
)
async def test_a_permanent_rejection_settles_at_once(codes: dict[str, int], state: MailState) -> None:
    """A recipient that is rejected with 5xx is not retried, and does not fail the other recipients."""
    rig = Rig()
    job = rig.submit("ada@x.org", "bob@x.org")
    rig.take(job)
    rig.reply(job, **codes)
    mail = rig.settled(job)
    assert mail.state is state
    assert [result.code for result in mail.recipients] == list(codes.values())
    assert rig.store.undecided == []


async def test_only_deferred_recipients_are_retried() -> None:
    """A recipient that has the mail does not get it twice, and one that was rejected is not offered again."""
    rig = Rig()
    job = rig.submit("ada@x.org", "bob@x.org", "cy@x.org", "di@x.org")
    rig.take(job)
    rig.reply(job, ada=250, bob=451, cy=550, di=421)
    assert job.pending == ("bob@x.org", "di@x.org")
    assert job.mail.state is MailState.QUEUED
    assert [result.code for result in job.mail.recipients] == [250, 451, 550, 421]
    assert rig.queue.empty()
    rig.clock.advance(retry.SCHEDULE[0])
    rig.take(job)
    rig.reply(job, bob=250, di=554)
    mail = rig.settled(job)
    assert mail.state is MailState.PARTIAL
    assert [result.code for result in mail.recipients] == [250, 250, 550, 554]
    assert mail.attempts == 2


async def test_retries_follow_the_schedule() -> None:
    """Each retry comes at its moment of the schedule, and its event has the delay and the relay's reply."""
    rig = Rig()
    job = rig.submit()
    for wait in retry.SCHEDULE:
        rig.take(job)
        rig.reply(job, ada=451)
        assert rig.notified(MailDeferred)[-1] == MailDeferred(job.mail, wait, "451 said")
        rig.clock.advance(wait - 0.01)
        assert rig.queue.empty()
        rig.clock.advance(0.01)
    rig.take(job)
    assert job.mail.attempts == len(retry.SCHEDULE)


async def test_a_mail_shows_its_next_attempt_while_it_is_deferred() -> None:
    """A mail says when it is sent again from its deferral on, until it is in the queue or has settled."""
    rig = Rig()
    job, other = rig.submit(), rig.submit()
    states: asyncio.Queue[Any] = asyncio.Queue()
    rig.waiters.add_watcher(job, states)
    for each in (job, other):
        rig.take(each)
        assert each.mail.next_attempt_time is None
        rig.reply(each, ada=451)
        assert each.mail.next_attempt_time == rig.clock.time + retry.SCHEDULE[0]
    shown = [states.get_nowait() for _ in range(states.qsize())]
    assert [mail.next_attempt_time is None for mail in shown] == [True, False]
    rig.lifecycle.cancel(other)
    assert rig.settled(other).next_attempt_time is None
    rig.clock.advance(retry.SCHEDULE[0])
    assert (job.mail.state, job.mail.next_attempt_time) == (MailState.QUEUED, None)
    rig.take(job)
    rig.reply(job, ada=250)
    assert rig.settled(job).next_attempt_time is None


async def test_no_retry_is_planned_past_the_deadline() -> None:
    """A mail whose next retry does not fit into its time fails now, with the relay's reply; its request id is free."""
    rig = Rig()
    job = rig.submit(ttl=retry.SCHEDULE[0])
    rig.take(job)
    rig.reply(job, ada=451)
    mail = rig.settled(job)
    assert mail.state is MailState.FAILED
    assert mail.recipients[0].code == 451
    assert rig.store.undecided == [mail]


async def test_a_mail_that_waits_expires_at_its_deadline() -> None:
    """A waiting mail expires not before its deadline, and whether or not a worker ever comes."""
    rig = Rig()
    job = rig.submit(ttl=10)
    rig.clock.advance(9.9)
    assert not job.settled
    rig.clock.advance(0.1)
    mail = rig.settled(job)
    assert mail.state is MailState.EXPIRED
    assert rig.store.undecided == [mail]
    assert rig.queue.empty()


async def test_a_mail_that_waits_for_its_retry_expires_too() -> None:
    """A deferred mail settles at its deadline, and what was accepted for some of its recipients is kept."""
    rig = Rig()
    jobs = [rig.submit(ttl=10), rig.submit("ada@x.org", "bob@x.org", ttl=10)]
    for job in jobs:
        rig.take(job)
        rig.reply(job, ada=451, bob=250)
    rig.clock.advance(DAY)
    mails = [rig.settled(job) for job in jobs]
    assert [mail.state for mail in mails] == [MailState.EXPIRED, MailState.PARTIAL]
    assert rig.store.undecided == mails[:1]


async def test_a_worker_that_is_late_does_not_send() -> None:
    """At its deadline a mail is not started, even if its timer has not run yet."""
    rig = Rig()
    job = rig.submit(ttl=10)
    rig.clock.time += 10
    assert rig.queue.get_nowait() is job
    assert not rig.lifecycle.start(job)
    assert rig.settled(job).state is MailState.EXPIRED


async def test_a_mail_that_has_settled_is_not_started() -> None:
    """A worker may have taken a mail that was cancelled before it could start."""
    rig = Rig()
    job = rig.submit()
    assert rig.queue.get_nowait() is job
    rig.lifecycle.cancel(job)
    assert not rig.lifecycle.start(job)
    assert rig.settled(job).state is MailState.CANCELLED


async def test_a_mail_that_is_with_the_relay_at_its_deadline_is_left_to_the_relay() -> None:
    """A mail that is with the relay at its deadline is decided by the relay's reply, not by the clock."""
    rig = Rig()
    job = rig.submit(ttl=10)
    rig.take(job)
    rig.clock.advance(20)
    assert not job.settled
    rig.reply(job)
    assert rig.settled(job).state is MailState.RELAYED


@pytest.mark.parametrize(("code", "state"), [(250, MailState.PARTIAL), (451, MailState.FAILED)])
@pytest.mark.parametrize("late", [True, False])
async def test_no_further_group_is_offered_when_the_time_is_over(late: bool, code: int, state: MailState) -> None:  # noqa: FBT001
    """Past its deadline, or abandoned, a mail for many settles with the replies about its first group."""
    rig = Rig()
    job = rig.submit(*(f"p{n}@x.org" for n in range(GROUP + 50)), ttl=10, guaranteed=late)
    rig.take(job)
    rig.clock.advance(20 if late else 1)
    rig.lifecycle.replied(job, tuple(RecipientResult(address, code, "", "said") for address in job.offered))
    mail = rig.settled(job)
    assert (mail.state, mail.attempts) == (state, 1)
    assert [result.code for result in mail.recipients] == [code] * GROUP + [0] * 50
    assert rig.queue.empty()


async def test_groups_follow_each_other_in_time() -> None:
    """Each group is offered at once, recipients that one deferred wait for all groups, and all of it is one attempt."""
    rig = Rig()
    people = [f"p{n}@x.org" for n in range(GROUP + 1)]
    job = rig.submit(*people)
    rig.take(job)
    rig.lifecycle.replied(job, tuple(RecipientResult(address, 451) for address in job.offered))
    assert (job.pending, job.attempts) == ((people[-1],), 0)
    rig.take(job)
    rig.reply(job)
    assert (job.pending, job.attempts) == (tuple(people[:-1]), 1)


@pytest.mark.parametrize("error", [CERTAIN, UNCERTAIN])
async def test_a_mail_that_is_lost_after_its_deadline_settles(error: ConnectionLost) -> None:
    """A mail lost after its deadline settles at once, since its timer has run and nothing else would end it."""
    rig = Rig()
    job = rig.submit(ttl=10)
    rig.take(job)
    rig.clock.advance(20)
    rig.lifecycle.connection_lost(job, error)
    rig.clock.advance(DAY)
    assert rig.settled(job).state is not MailState.RELAYED


async def test_a_certain_loss_costs_nothing() -> None:
    """A mail not yet written goes over the next connection at once, ahead of the others, without using an attempt."""
    rig = Rig()
    job, _ = rig.submit(), rig.submit()
    rig.take(job)
    rig.lifecycle.connection_lost(job, CERTAIN)
    assert job.mail.state is MailState.QUEUED
    assert job.mail.attempts == 0
    rig.take(job)
    rig.reply(job)
    assert rig.settled(job).attempts == 1


async def test_a_mail_that_keeps_losing_connections_lets_others_go_first() -> None:
    """From its second loss on a mail is deferred: the relay may end connections over this very mail."""
    rig = Rig()
    job, other = rig.submit(), rig.submit()
    for _ in range(2):
        rig.take(job)
        rig.lifecycle.connection_lost(job, CERTAIN)
    rig.take(other)
    assert rig.queue.empty()
    rig.clock.advance(retry.SCHEDULE[0])
    rig.take(job)


async def test_a_mail_that_was_not_started_is_never_to_blame() -> None:
    """A connection that ended over another mail counts as no loss of this one, however often."""
    rig = Rig()
    job = rig.submit()
    for _ in range(5):
        rig.take(job)
        rig.lifecycle.connection_lost(job, ConnectionLost("gone", not_started=True))
    rig.take(job)
    assert (job.losses, job.attempts, rig.notified(MailDeferred)) == (0, 0, [])


async def test_losses_are_retried_ever_later() -> None:
    """A relay that ends every connection, or answers each with 421, is tried less and less often."""
    rig = Rig()
    job = rig.submit()
    for _ in range(4):
        rig.take(job)
        rig.lifecycle.connection_lost(job, CERTAIN)
        rig.clock.advance(0 if not rig.queue.empty() else retry.SCHEDULE[-1])
    waits = [event.retry_after for event in rig.notified(MailDeferred)]
    assert waits == sorted(set(waits))
    assert len(waits) == 3


async def test_an_uncertain_loss_is_sent_again_as_the_same_mail() -> None:
    """A mail goes again after an uncertain loss with the same bytes and Message-ID, and the attempt counts."""
    rig = Rig()
    job = rig.submit()
    before = job.envelope, job.mail.message_id
    rig.take(job)
    rig.lifecycle.connection_lost(job, UNCERTAIN)
    assert job.mail.attempts == 1
    rig.take(job)
    assert (job.envelope, job.mail.message_id) == before
    rig.reply(job)
    assert rig.settled(job).attempts == 2


async def test_no_more_copies_than_a_few() -> None:
    """A relay that accepts each copy without saying so gets MOST_COPIES; certain losses in between do not count."""
    rig = Rig()
    job = rig.submit()
    for number in range(1, MOST_COPIES + 1):
        for error in (CERTAIN, UNCERTAIN):
            rig.clock.advance(0 if not rig.queue.empty() else retry.SCHEDULE[-1])
            rig.take(job)
            rig.lifecycle.connection_lost(job, error)
        assert job.attempts == number
    mail = rig.settled(job)
    assert (mail.state, mail.attempts) == (MailState.UNCERTAIN, MOST_COPIES)
    assert rig.queue.empty()
    assert rig.store.undecided == []


@pytest.mark.parametrize(
    ("second", "state"),
    [(250, MailState.RELAYED), (550, MailState.UNCERTAIN), (451, MailState.UNCERTAIN), (421, MailState.UNCERTAIN)],
)
async def test_only_a_yes_ends_uncertainty(second: int, state: MailState) -> None:
    """Only an acceptance ends uncertainty: a rejection of the second copy says nothing of the first."""
    rig = Rig()
    job = rig.submit(ttl=100)
    rig.take(job)
    rig.lifecycle.connection_lost(job, UNCERTAIN)
    rig.take(job)
    rig.reply(job, ada=second)
    rig.clock.advance(100)
    mail = rig.settled(job)
    assert mail.state is state
    assert mail.recipients[0].code == second
    assert rig.store.undecided == []


async def test_uncertainty_is_each_recipients_own() -> None:
    """A recipient rejected before the loss is not uncertain, and one accepted after it is so no longer."""
    rig = Rig()
    job = rig.submit("ada@x.org", "bob@x.org")
    rig.take(job)
    rig.reply(job, ada=550, bob=451)
    rig.clock.advance(retry.SCHEDULE[0])
    rig.take(job)
    rig.lifecycle.connection_lost(job, UNCERTAIN)
    rig.take(job)
    rig.reply(job, bob=250)
    assert rig.settled(job).state is MailState.PARTIAL


async def test_one_recipient_in_doubt_makes_the_mail_uncertain() -> None:
    """Of two that may have got the mail one is accepted again and one rejected: the latter may have it all the same."""
    rig = Rig()
    job = rig.submit("ada@x.org", "bob@x.org")
    rig.take(job)
    rig.lifecycle.connection_lost(job, UNCERTAIN)
    rig.take(job)
    rig.reply(job, ada=250, bob=550)
    assert rig.settled(job).state is MailState.UNCERTAIN


@pytest.mark.parametrize(("error", "final"), [(CERTAIN, False), (UNCERTAIN, True)])
async def test_uncertain_settles_where_a_second_copy_is_not_wanted(error: ConnectionLost, final: bool) -> None:  # noqa: FBT001
    """With EMAIL_ON_UNCERTAIN=fail a mail that may have left is not sent again; one that has not, is."""
    rig = Rig(on_uncertain="fail")
    job = rig.submit()
    rig.take(job)
    rig.lifecycle.connection_lost(job, error)
    assert job.settled is final
    if final:
        assert rig.settled(job).state is MailState.UNCERTAIN


@pytest.mark.parametrize(("error", "state"), [(CERTAIN, MailState.FAILED), (UNCERTAIN, MailState.UNCERTAIN)])
async def test_an_abandoned_mail_that_is_lost_settles(error: ConnectionLost, state: MailState) -> None:
    """An abandoned mail has no second attempt after a loss, and is UNCERTAIN if it may have left."""
    rig = Rig()
    job = rig.submit(guaranteed=False)
    rig.take(job)
    rig.lifecycle.connection_lost(job, error)
    assert rig.settled(job).state is state


async def test_an_abandoned_mail_that_is_deferred_fails() -> None:
    """A deferred mail fails if its caller has left meanwhile, since nobody would learn of a retry."""
    rig = Rig()
    job = rig.submit(guaranteed=False)
    rig.take(job)
    rig.reply(job, ada=451)
    assert rig.settled(job).state is MailState.FAILED


@pytest.mark.parametrize("error", [CERTAIN, UNCERTAIN, None])
async def test_a_mail_that_somebody_waits_for_goes_on(error: ConnectionLost | None) -> None:
    """A waiter keeps a mail alive as a guarantee does."""
    rig = Rig()
    job = rig.submit(guaranteed=False)
    rig.await_(job)
    rig.take(job)
    if error is None:
        rig.reply(job, ada=451)
    else:
        rig.lifecycle.connection_lost(job, error)
    rig.clock.advance(retry.SCHEDULE[0])
    rig.take(job)
    assert job.state is MailState.SENDING


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("guaranteed", [False, True])
@pytest.mark.parametrize("waiters", [0, 1])
async def test_dropping_abandoned_mails(taken: bool, guaranteed: bool, waiters: int) -> None:  # noqa: FBT001
    """A mail is dropped for want of waiters only while it is queued, and only if it is not guaranteed."""
    rig = Rig()
    job = rig.submit(guaranteed=guaranteed)
    if waiters:
        rig.await_(job)
    if taken:
        rig.take(job)
    rig.lifecycle.drop_if_abandoned(job)
    assert job.settled is (not taken and not guaranteed and not waiters)
    if job.settled:
        mail = rig.settled(job)
        assert mail.state is MailState.CANCELLED
        assert rig.store.undecided == [mail], "its caller may try again"
        assert rig.queue.empty()


async def test_cancelling() -> None:
    """A waiting mail is cancelled for good; one that is being sent is not."""
    rig = Rig()
    job = rig.submit()
    rig.lifecycle.cancel(job)
    assert rig.settled(job).state is MailState.CANCELLED
    assert rig.store.undecided == []
    assert rig.queue.empty()
    other = rig.submit()
    rig.take(other)
    with pytest.raises(FailedPrecondition):
        rig.lifecycle.cancel(other)
    assert not other.settled


async def test_a_mail_that_may_have_left_is_not_cancelled() -> None:
    """A mail that waits for its second copy may be with the relay already."""
    rig = Rig()
    job = rig.submit()
    rig.take(job)
    rig.lifecycle.connection_lost(job, UNCERTAIN)
    with pytest.raises(FailedPrecondition):
        rig.lifecycle.cancel(job)
    rig.take(job)


async def test_a_cancelled_mail_is_not_brought_back_by_its_retry() -> None:
    """Nothing is queued for a mail that has settled."""
    rig = Rig()
    job = rig.submit()
    rig.take(job)
    rig.reply(job, ada=451)
    rig.lifecycle.cancel(job)
    rig.clock.advance(DAY)
    assert rig.queue.empty()
    assert rig.settled(job).state is MailState.CANCELLED


async def test_drained_when_all_have_settled() -> None:
    """`drained` waits for the last mail, retries included, and returns at once if no mail is open."""
    rig = Rig()
    await rig.lifecycle.drained()
    jobs = [rig.submit(), rig.submit()]
    waiting = asyncio.create_task(rig.lifecycle.drained())
    rig.take(jobs[0])
    rig.reply(jobs[0])
    rig.take(jobs[1])
    rig.reply(jobs[1], ada=451)
    await asyncio.sleep(0)
    assert not waiting.done()
    rig.lifecycle.cancel(jobs[1])
    await waiting


async def test_each_settlement_calls_one_stream() -> None:
    """Each settlement, in whatever state, frees the mail's place and octets, and calls the next stream that waits."""
    rig = Rig()
    places, called = rig.lifecycle.places, list[str]()
    for name in "abcd":
        places.waiting.add(name, partial(called.append, name), lambda: True)
    relayed, cancelled, deferred = rig.submit(), rig.submit(), rig.submit(ttl=10)
    assert (places.taken, rig.memory.unsettled) == (3, 3 * relayed.octets)
    rig.take(relayed)
    rig.reply(relayed)
    assert called == ["a"]
    rig.lifecycle.cancel(cancelled)
    assert called == ["a", "b"]
    rig.take(deferred)
    rig.reply(deferred, ada=451)
    assert called == ["a", "b"]
    rig.clock.advance(10)
    assert called == ["a", "b", "c"]
    assert (places.taken, rig.memory.unsettled) == (0, 0)


async def test_there_is_a_place_when_a_stream_is_called() -> None:
    """A stream that is called finds the mail gone and its place free."""
    rig = Rig()
    job = rig.submit()
    left: list[int] = []
    rig.lifecycle.places.waiting.add("a", lambda: left.append(rig.lifecycle.places.taken), lambda: True)
    rig.lifecycle.cancel(job)
    assert left == [0]


# A stop.


async def test_closing_fails_what_the_store_does_not_keep() -> None:
    """`close` counts and fails open mails, or makes them UNCERTAIN if in flight; each waiter gets Unavailable."""
    rig = Rig()
    waiting, sending = rig.submit(), rig.submit()
    assert rig.queue.get_nowait() is waiting
    rig.take(sending)
    assert rig.lifecycle.close() == Closed(kept=0, failed=2, lost=2, uncertain=1)
    for job in (waiting, sending):
        assert isinstance(rig.ends[job], Unavailable)
        assert job.mail.state is (MailState.UNCERTAIN if job is sending else MailState.FAILED)
        assert "stopped" in job.mail.recipients[0].reply
    assert rig.store.settled == [waiting.mail, sending.mail]
    assert rig.store.undecided == [waiting.mail]
    assert rig.store.progress == []
    assert rig.lifecycle.close() == Closed(0, 0)
    await rig.lifecycle.drained()


async def test_a_durable_store_keeps_guaranteed_mails_at_a_stop() -> None:
    """A stop keeps guaranteed mails with their progress, those in flight as uncertain, and fails the others."""
    rig = Rig(durable=True)
    waiting, sending, deferred = rig.submit(), rig.submit("ada@x.org", "bob@x.org"), rig.submit()
    awaited = rig.submit(guaranteed=False)
    rig.await_(awaited)
    assert rig.queue.get_nowait() is waiting
    rig.queue.put_back(waiting)
    rig.queue.discard(sending)
    assert rig.lifecycle.start(sending)
    rig.queue.discard(deferred)
    assert rig.lifecycle.start(deferred)
    rig.reply(deferred, ada=451)
    rig.store.progress.clear()
    assert rig.lifecycle.close() == Closed(kept=3, failed=1)
    assert rig.store.settled == [awaited.mail]
    assert awaited.mail.state is MailState.FAILED
    assert [job for job, end in rig.ends.items() if isinstance(end, Unavailable)] == [
        waiting,
        sending,
        deferred,
        awaited,
    ]
    noted = dict(rig.store.progress)
    assert list(noted) == [waiting.id, sending.id, deferred.id]
    assert noted[waiting.id] == make_job().progress
    assert (noted[sending.id].uncertain, noted[sending.id].copies) == (("ada@x.org", "bob@x.org"), 1)
    assert (noted[deferred.id].attempts, noted[deferred.id].results[0].code) == (1, 451)
    assert [event.mail.id for event in rig.notified(MailSettled)] == [awaited.id]
    assert rig.queue.empty()
    assert len(rig.lifecycle) == 0
    rig.clock.advance(2 * DAY)
    assert rig.queue.empty(), "neither its retry nor its deadline brings one back"
    await rig.lifecycle.drained()


async def test_a_mail_that_is_kept_goes_on_as_if_nothing_had_been() -> None:
    """The next lifecycle resumes a kept mail from its entry: accepted stays accepted, and doubt stays doubt."""
    rig = Rig(durable=True)
    job = rig.submit("ada@x.org", "bob@x.org", "cy@x.org")
    rig.take(job)
    rig.reply(job, ada=250, bob=451, cy=451)
    rig.clock.advance(retry.SCHEDULE[0])
    rig.take(job)
    rig.lifecycle.close()
    other = Rig(durable=True)
    again = Job.from_entry(job.entry())
    other.lifecycle.submit(again)
    other.waiters.add_done_callback(again, other.note_end)
    other.take(again)
    assert again.offered == ("bob@x.org", "cy@x.org")
    other.reply(again, bob=250, cy=550)
    mail = other.settled(again)
    assert (mail.state, mail.attempts) == (MailState.UNCERTAIN, 2)
    assert [result.code for result in mail.recipients] == [250, 250, 550]


async def test_a_stop_forgets_no_group() -> None:
    """Recipients that an earlier group of the same attempt deferred are kept with those that were not offered yet."""
    rig = Rig(durable=True)
    people = tuple(f"p{n}@x.org" for n in range(GROUP + 50))
    job = rig.submit(*people)
    rig.take(job)
    rig.lifecycle.replied(job, tuple(RecipientResult(address, 451) for address in job.offered))
    rig.lifecycle.close()
    assert rig.store.progress[-1][1].pending == people


@pytest.mark.parametrize("how", ["fail", "copies"])
async def test_a_stop_keeps_no_mail_that_may_not_be_copied(how: str) -> None:
    """A mail in flight settles as UNCERTAIN where the next start must not send it again."""
    rig = Rig(durable=True, on_uncertain="fail" if how == "fail" else "retry")
    job, waiting = rig.submit(), rig.submit()
    job.copies = MOST_COPIES - 1 if how == "copies" else 0
    rig.take(job)
    assert rig.lifecycle.close() == Closed(kept=1, failed=1, lost=1, uncertain=1)
    assert job.mail.state is MailState.UNCERTAIN
    assert rig.store.settled == [job.mail]
    assert rig.store.undecided == []
    assert [mail_id for mail_id, _ in rig.store.progress] == [waiting.id]


@pytest.mark.parametrize(
    ("durable", "guaranteed", "noted"), [(True, True, 1), (True, False, 0), (False, True, 0), (False, False, 0)]
)
async def test_only_guaranteed_mails_of_a_durable_store_have_their_progress_noted(
    durable: bool,  # noqa: FBT001
    guaranteed: bool,  # noqa: FBT001
    noted: int,
) -> None:
    """A deferral is written for them alone: others have no entry in the store."""
    rig = Rig(durable=durable)
    job = rig.submit("ada@x.org", "bob@x.org", guaranteed=guaranteed)
    rig.await_(job)
    rig.take(job)
    rig.reply(job, ada=250, bob=451)
    assert rig.store.progress == [(job.id, job.progress)] * noted
    assert job.progress.pending == ("bob@x.org",)


async def test_nothing_is_taken_on_after_close() -> None:
    """A mail that comes late is refused: nobody would send it, or say how it ended."""
    rig = Rig()
    rig.lifecycle.close()
    with pytest.raises(Unavailable):
        rig.submit()
    assert len(rig.lifecycle) == 0
    assert rig.queue.empty()
    assert rig.events == []
    await rig.lifecycle.drained()


_LATE: list[Callable[[Rig, Job], None]] = [
    lambda rig, job: rig.reply(job),
    lambda rig, job: rig.reply(job, ada=451),
    lambda rig, job: rig.reply(job, ada=550),
    lambda rig, job: rig.lifecycle.connection_lost(job, CERTAIN),
    lambda rig, job: rig.lifecycle.connection_lost(job, UNCERTAIN),
]


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("late", _LATE, ids=["relayed", "deferred", "refused", "lost", "uncertain"])
async def test_a_report_after_close_changes_nothing(late: Callable[[Rig, Job], None], durable: bool) -> None:  # noqa: FBT001
    """A worker's report about a mail that a stop has let go neither settles it again nor queues it."""
    rig = Rig(durable=durable)
    job = rig.submit()
    rig.take(job)
    rig.lifecycle.close()
    kept = list(rig.store.progress)
    late(rig, job)
    rig.clock.advance(DAY)
    assert job.settled is not durable
    assert durable or job.mail.state is MailState.UNCERTAIN
    assert len(rig.notified(MailSettled)) == len(rig.store.settled) == (not durable)
    assert rig.store.progress == kept
    assert rig.queue.empty()


_STEPS = (
    "submit",
    "submit",
    "take",
    "take",
    "accepted",
    "deferred",
    "rejected",
    "certain",
    "uncertain",
    "cancel",
    "wait",
)


class Model:
    """A rig, and what may happen to its mails, in any order."""

    def __init__(self, *, durable: bool) -> None:
        self.rig = Rig(durable=durable)
        self.jobs: list[Job] = []

    def do(self, step: str, which: int) -> None:
        """Take a step with one of the mails, if that is possible."""
        rig = self.rig
        job = self.jobs[which % len(self.jobs)] if self.jobs else None
        if step == "submit":
            self.jobs.append(rig.submit("ada@x.org", "bob@x.org", ttl=10.0 * (which + 1), guaranteed=bool(which % 2)))
        elif step == "wait":
            rig.clock.advance(which * 5.0)
        elif step == "take":
            if not rig.queue.empty():
                taken = rig.queue.get_nowait()
                rig.queue.task_done()
                rig.lifecycle.start(taken)
        elif job is not None:
            self._report(step, job)

    def _report(self, step: str, job: Job) -> None:
        lifecycle = self.rig.lifecycle
        if step == "cancel":
            if job.state is MailState.QUEUED and not job.uncertain:
                lifecycle.cancel(job)
        elif job.state is MailState.SENDING:
            if step in ("certain", "uncertain"):
                lifecycle.connection_lost(job, CERTAIN if step == "certain" else UNCERTAIN)
            else:
                self.rig.reply(job, ada={"accepted": 250, "deferred": 451, "rejected": 550}[step])


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("closes", [False, True])
@given(steps=st.lists(st.tuples(st.sampled_from(_STEPS), st.integers(0, 5)), max_size=60))
async def test_every_accepted_mail_settles_once(closes: bool, durable: bool, steps: list[tuple[str, int]]) -> None:  # noqa: FBT001
    """Whatever happens in whatever order: each mail settles or is kept, its end is known once, and nothing is left."""
    model = Model(durable=durable)
    rig = model.rig
    for step, which in steps:
        model.do(step, which)
    if closes:
        rig.lifecycle.close()
    for job in model.jobs:
        if job.state is MailState.SENDING:
            rig.reply(job)
    rig.clock.advance(DAY)
    assert len(rig.lifecycle) == 0
    assert set(rig.ends) == set(model.jobs)
    settled = [mail.id for mail in rig.store.settled]
    assert len(settled) == len(set(settled)) == len(rig.notified(MailSettled))
    assert {job.id for job in model.jobs if job.settled} == set(settled)
    assert closes or len(settled) == len(model.jobs)
    assert rig.queue.empty()
    await rig.queue.join()
    await rig.lifecycle.drained()


async def test_watchers_see_every_state_of_a_mail() -> None:
    """Watchers see each state of a mail, with the results of a deferral, and the final state last."""
    rig = Rig()
    job = rig.submit()
    states: asyncio.Queue[Any] = asyncio.Queue()
    rig.waiters.add_watcher(job, states)
    rig.take(job)
    rig.reply(job, ada=451)
    rig.clock.advance(retry.SCHEDULE[0])
    rig.take(job)
    rig.reply(job)
    seen = [states.get_nowait() for _ in range(states.qsize())]
    assert [mail.state.name for mail in seen] == ["SENDING", "QUEUED", "SENDING", "RELAYED"]
    assert seen[1].recipients[0].code == 451
    assert seen[1].attempts == 1


async def test_every_job_is_done_once_for_the_queue() -> None:
    """`MailQueue.join` returns once all have settled, those that settled while they waited included."""
    rig = Rig()
    sent, expired, cancelled, deferred = rig.submit(), rig.submit(ttl=1), rig.submit(), rig.submit()
    rig.take(sent)
    rig.reply(sent)
    rig.clock.advance(1)
    rig.lifecycle.cancel(cancelled)
    rig.take(deferred)
    rig.reply(deferred, ada=451)
    assert expired.settled
    await rig.queue.join()
    rig.clock.advance(retry.SCHEDULE[0])
    joining = asyncio.create_task(rig.queue.join())
    await asyncio.sleep(0)
    assert not joining.done()
    rig.lifecycle.close()
    await joining


async def test_an_observer_that_does_not_ask_is_not_notified_of_acceptance() -> None:
    """The lifecycle builds no MailAccepted event for an observer that did not ask for that type."""
    rig = Rig()
    rig.event_types = frozenset({MailSettled})
    lifecycle = Lifecycle(Dispatcher(rig.queue), rig.store, rig.waiters, rig, random=lambda: 0.5, **limits())
    lifecycle.submit(make_job(deadline=NOW + 1))
    assert rig.events == []
    lifecycle.close()


async def test_the_repr_counts() -> None:
    """The repr of the lifecycle counts open and deferred mails and shows the dispatcher with its queue."""
    rig = Rig()
    job = rig.submit()
    rig.take(job)
    rig.reply(job, ada=451)
    rig.submit()
    queue = "<MailQueue 0 urgent, 1 normal, 0 bulk>"
    assert repr(rig.lifecycle) == f"<Lifecycle 2 open, 1 deferred, <Dispatcher 0 idle, 0 busy, 0 woken, {queue}>>"


TOO_FAST = RecipientResult("ada@x.org", 450, "4.7.1", "too much mail")


async def test_a_mail_that_is_requeued_counts_no_attempt_and_waits_for_no_retry() -> None:
    """A refusal because too much comes at once puts the mail back at the front, with the reply as its last word."""
    rig = Rig()
    first, second = rig.submit(), rig.submit()
    rig.take(first)
    rig.lifecycle.requeue(first, (TOO_FAST,))
    assert (first.state, first.attempts, rig.notified(MailDeferred)) == (MailState.QUEUED, 0, [])
    assert first.mail.recipients[0].reply == "too much mail"
    rig.take(first)
    rig.reply(first)
    assert rig.settled(first).state is MailState.RELAYED
    assert rig.settled(first).attempts == 1
    rig.take(second)


async def test_a_mail_that_is_requeued_again_lets_others_go_first() -> None:
    """A relay that counts the mails of one sender holds up no other mail with them."""
    rig = Rig()
    first, second = rig.submit(), rig.submit()
    for _ in range(2):
        rig.take(first)
        rig.lifecycle.requeue(first, (TOO_FAST,))
    assert [rig.queue.get_nowait(), rig.queue.get_nowait()] == [second, first]


async def test_a_mail_that_is_requeued_keeps_its_deadline() -> None:
    """A mail that waits for the relay's rate expires on time, and one that is over settles with the reply."""
    rig = Rig()
    waits, late = rig.submit(ttl=30.0), rig.submit(ttl=30.0)
    rig.take(waits)
    rig.lifecycle.requeue(waits, (TOO_FAST,))
    rig.queue.discard(waits)
    rig.take(late)
    rig.queue.put_nowait(waits)
    rig.clock.advance(31.0)
    assert rig.settled(waits).state is MailState.EXPIRED
    assert rig.settled(waits).recipients[0].code == 450
    rig.lifecycle.requeue(late, (TOO_FAST,))
    assert rig.settled(late).state is MailState.FAILED


async def test_a_refusal_that_comes_after_a_stop_changes_nothing() -> None:
    """A mail that a stop has failed is not queued again."""
    rig = Rig()
    job = rig.submit()
    rig.take(job)
    rig.lifecycle.close()
    rig.lifecycle.requeue(job, (TOO_FAST,))
    assert rig.queue.empty()


@pytest.mark.parametrize(("relays", "at_once"), [(1, 1), (2, 3), (3, 5)])
async def test_each_of_several_relays_is_tried_at_once(relays: int, at_once: int) -> None:
    """A lost connection sends the mail on without a wait, until each relay may have ended two over it."""
    rig = Rig(relays=relays)
    job = rig.submit()
    for _ in range(at_once):
        rig.take(job)
        rig.lifecycle.connection_lost(job, CERTAIN)
        assert rig.notified(MailDeferred) == []
    rig.take(job)
    rig.lifecycle.connection_lost(job, CERTAIN)
    assert [event.retry_after for event in rig.notified(MailDeferred)] == [retry.SCHEDULE[0]]
