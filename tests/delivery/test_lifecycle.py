"""What becomes of each accepted mail, step by step, on a clock that a test moves."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from otpmail.delivery import retry
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import MOST_COPIES, Lifecycle
from otpmail.delivery.queue import MailQueue
from otpmail.errors import ConnectionLost, FailedPrecondition, Unavailable
from otpmail.events import ALL_EVENTS, Event, MailAccepted, MailDeferred, MailSettled
from otpmail.model import Envelope, Mail, MailState, Priority, RecipientResult
from otpmail.smtp.transaction import GROUP

DAY = 86_400.0
NOW = 1_700_000_000.0
EventT = TypeVar("EventT", bound=Event)


@dataclass
class Timer:
    """As much of a TimerHandle as is used."""

    callback: Callable[..., object]
    args: tuple[Any, ...]
    live: bool = True

    def cancel(self) -> None:
        """It never runs."""
        self.live = False


class Clock:
    """Stands in for the loop where only its time and timers are used; nothing runs until a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    def time(self) -> float:
        """The time."""
        return self.now

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:
        """As the loop's."""
        timer = Timer(callback, args)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """As the loop's."""
        return self.call_at(self.now + delay, callback, *args)

    def advance(self, seconds: float) -> None:
        """Let the time pass, and run what falls due, each at its own moment."""
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            self.now, _, timer = heapq.heappop(self._timers)
            if timer.live:
                timer.callback(*timer.args)
        self.now = until


class Store:
    """A MailStore that only keeps what has settled."""

    def __init__(self) -> None:
        self.settled: list[Mail] = []
        self.forgotten: list[Mail] = []

    async def find(self, caller: str, request_id: str, fingerprint: bytes) -> Mail | None:
        """Not asked for here."""
        raise NotImplementedError

    async def add(self, mail: Mail, fingerprint: bytes) -> Mail | None:
        """Not asked for here."""
        raise NotImplementedError

    def settle(self, mail: Mail) -> None:
        """Keep it."""
        self.settled.append(mail)

    def forget_request(self, mail: Mail) -> None:
        """Note that the request id may come again."""
        self.forgotten.append(mail)

    async def get(self, caller: str, mail_id: str) -> Mail | None:
        """Not asked for here."""
        raise NotImplementedError


class DeliveryHandler:
    """A Delivery with everything around it in the test's hands."""

    event_types = ALL_EVENTS

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.queue = MailQueue()
        self.store = Store()
        self.events: list[Event] = []
        self.delivery = Lifecycle(self.queue, self.store, self, random=lambda: 0.5, now=lambda: NOW, **options)
        self.delivery._loop = self.clock  # type: ignore[assignment]
        self.delivery._deadlines._loop = self.clock  # type: ignore[assignment]
        self._numbers = itertools.count(1)

    def notify(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)

    def told(self, kind: type[EventT]) -> list[EventT]:
        """The events of that kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def submit(self, *recipients: str, ttl: float = DAY, guaranteed: bool = True) -> Job:
        """Submit a new mail."""
        name = f"m{next(self._numbers)}"
        mail = Mail(name, "anonymous", f"<{name}@example.org>", 1.0)
        envelope = Envelope("service@example.org", recipients or ("ada@x.org",), b"Subject: hi\r\n\r\nhi\r\n")
        job = Job(mail, envelope, Priority.NORMAL, self.clock.now + ttl, guaranteed=guaranteed)
        self.delivery.submit(job)
        return job

    def take(self, job: Job) -> None:
        """Be the worker that takes the job in hand."""
        assert self.queue.get_nowait() is job
        assert self.delivery.begin(job)

    def answer(self, job: Job, **codes: int) -> None:
        """Be the relay: answer each pending recipient by the name before the @."""
        results = tuple(RecipientResult(a, codes.get(a.partition("@")[0], 250), "", "said") for a in job.pending)
        self.delivery.answered(job, results)

    def settled(self, job: Job) -> Mail:
        """The mail, once it has settled; in one way, everywhere."""
        mail = job.mail
        assert job.end(asyncio.get_running_loop()).result() is mail
        assert mail.state.final
        assert mail.settle_time == NOW
        assert self.store.settled.count(mail) == 1
        assert [event.mail for event in self.told(MailSettled) if event.mail.id == mail.id] == [mail]
        assert self.delivery.find(mail.id) is None
        assert job.mail is mail
        return mail


CERTAIN = ConnectionLost("gone")
UNCERTAIN = ConnectionLost("gone", uncertain=True)


async def test_a_mail_that_the_relay_takes_is_relayed() -> None:
    """Queued, sending, relayed: told at each end, kept in the store, gone from the open ones."""
    desk = DeliveryHandler()
    job = desk.submit("ada@x.org", "bob@x.org")
    assert desk.delivery.find("m1") is job
    assert len(desk.delivery) == 1
    assert desk.events == [MailAccepted(job.mail)]
    desk.take(job)
    assert job.mail.state is MailState.SENDING
    desk.answer(job)
    mail = desk.settled(job)
    assert mail.state is MailState.RELAYED
    assert mail.attempts == 1
    assert [result.code for result in mail.recipients] == [250, 250]
    assert len(desk.delivery) == 0


@pytest.mark.parametrize(
    ("codes", "state"),
    [
        ({"ada": 550, "bob": 550}, MailState.FAILED),
        ({"ada": 250, "bob": 550}, MailState.PARTIAL),
        ({"ada": 250, "bob": 250}, MailState.RELAYED),
    ],
)
async def test_a_refusal_for_good_settles_at_once(codes: dict[str, int], state: MailState) -> None:
    """5xx is not tried again, and does not fail the other recipients."""
    desk = DeliveryHandler()
    job = desk.submit("ada@x.org", "bob@x.org")
    desk.take(job)
    desk.answer(job, **codes)
    mail = desk.settled(job)
    assert mail.state is state
    assert [result.code for result in mail.recipients] == list(codes.values())


async def test_only_deferred_recipients_are_tried_again() -> None:
    """Whoever has the mail does not get it twice, whoever was refused is not asked again."""
    desk = DeliveryHandler()
    job = desk.submit("ada@x.org", "bob@x.org", "cy@x.org", "di@x.org")
    desk.take(job)
    desk.answer(job, ada=250, bob=451, cy=550, di=421)
    assert job.pending == ("bob@x.org", "di@x.org")
    assert job.mail.state is MailState.QUEUED
    assert [result.code for result in job.mail.recipients] == [250, 451, 550, 421]
    assert desk.queue.empty()
    desk.clock.advance(retry.SCHEDULE[0])
    desk.take(job)
    desk.answer(job, bob=250, di=554)
    mail = desk.settled(job)
    assert mail.state is MailState.PARTIAL
    assert [result.code for result in mail.recipients] == [250, 250, 550, 554]
    assert mail.attempts == 2


async def test_tries_follow_the_schedule() -> None:
    """Each further try waits for its turn in the schedule, to the moment, and is told with its reply."""
    desk = DeliveryHandler()
    job = desk.submit()
    for wait in retry.SCHEDULE:
        desk.take(job)
        desk.answer(job, ada=451)
        assert desk.told(MailDeferred)[-1] == MailDeferred(job.mail, wait, "451 said")
        desk.clock.advance(wait - 0.01)
        assert desk.queue.empty()
        desk.clock.advance(0.01)
    desk.take(job)
    assert job.mail.attempts == len(retry.SCHEDULE)


async def test_no_try_is_planned_past_the_deadline() -> None:
    """When the next try does not fit into the mail's time, it fails now, with what the relay said."""
    desk = DeliveryHandler()
    job = desk.submit(ttl=retry.SCHEDULE[0])
    desk.take(job)
    desk.answer(job, ada=451)
    mail = desk.settled(job)
    assert mail.state is MailState.FAILED
    assert mail.recipients[0].code == 451


async def test_a_mail_that_waits_expires_at_its_deadline() -> None:
    """Not before; and whether or not a worker ever comes."""
    desk = DeliveryHandler()
    job = desk.submit(ttl=10)
    desk.clock.advance(9.9)
    assert not job.settled
    desk.clock.advance(0.1)
    assert desk.settled(job).state is MailState.EXPIRED
    assert desk.queue.empty()


async def test_a_mail_that_waits_for_its_next_try_expires_too() -> None:
    """A deferred mail is nobody's until its time, and settles at its deadline; what some got is kept."""
    desk = DeliveryHandler()
    jobs = [desk.submit(ttl=10), desk.submit("ada@x.org", "bob@x.org", ttl=10)]
    for job in jobs:
        desk.take(job)
        desk.answer(job, ada=451, bob=250)
    desk.clock.advance(DAY)
    assert [desk.settled(job).state for job in jobs] == [MailState.EXPIRED, MailState.PARTIAL]


async def test_a_worker_that_is_late_does_not_send() -> None:
    """At the deadline a mail is not begun, even if its timer has not run yet."""
    desk = DeliveryHandler()
    job = desk.submit(ttl=10)
    desk.clock.now += 10
    assert desk.queue.get_nowait() is job
    assert not desk.delivery.begin(job)
    assert desk.settled(job).state is MailState.EXPIRED


async def test_a_mail_that_is_with_the_relay_at_its_deadline_is_left_to_the_relay() -> None:
    """The answer that is on its way is worth more than the clock."""
    desk = DeliveryHandler()
    job = desk.submit(ttl=10)
    desk.take(job)
    desk.clock.advance(20)
    assert not job.settled
    desk.answer(job)
    assert desk.settled(job).state is MailState.RELAYED


@pytest.mark.parametrize(("code", "state"), [(250, MailState.PARTIAL), (451, MailState.FAILED)])
@pytest.mark.parametrize("late", [True, False])
async def test_no_further_group_is_offered_when_the_time_is_over(late: bool, code: int, state: MailState) -> None:  # noqa: FBT001
    """Past its deadline, or with nobody waiting any more, a mail for many settles with what its first people got."""
    desk = DeliveryHandler()
    job = desk.submit(*(f"p{n}@x.org" for n in range(GROUP + 50)), ttl=10, guaranteed=late)
    desk.take(job)
    desk.clock.advance(20 if late else 1)
    desk.delivery.answered(job, tuple(RecipientResult(address, code, "", "said") for address in job.offered))
    mail = desk.settled(job)
    assert (mail.state, mail.attempts) == (state, 1)
    assert [result.code for result in mail.recipients] == [code] * GROUP + [0] * 50
    assert desk.queue.empty()


async def test_groups_follow_each_other_in_time() -> None:
    """Each has its turn at once, whoever a group deferred waits for all of them, and all of it is one attempt."""
    desk = DeliveryHandler()
    people = [f"p{n}@x.org" for n in range(GROUP + 1)]
    job = desk.submit(*people)
    desk.take(job)
    desk.delivery.answered(job, tuple(RecipientResult(address, 451) for address in job.offered))
    assert (job.pending, job.attempts) == ((people[-1],), 0)
    desk.take(job)
    desk.answer(job)
    assert (job.pending, job.attempts) == (tuple(people[:-1]), 1)


@pytest.mark.parametrize("error", [CERTAIN, UNCERTAIN])
async def test_a_mail_that_is_lost_after_its_deadline_settles(error: ConnectionLost) -> None:
    """With its timer gone, nothing else would end it while the relay is away: every accepted mail settles."""
    desk = DeliveryHandler()
    job = desk.submit(ttl=10)
    desk.take(job)
    desk.clock.advance(20)
    desk.delivery.lost(job, error)
    desk.clock.advance(DAY)
    assert desk.settled(job).state is not MailState.RELAYED


async def test_a_certain_loss_costs_nothing() -> None:
    """A mail not yet written goes to the next connection at once, ahead of the others, without using up a try."""
    desk = DeliveryHandler()
    job, _ = desk.submit(), desk.submit()
    desk.take(job)
    desk.delivery.lost(job, CERTAIN)
    assert job.mail.state is MailState.QUEUED
    assert job.mail.attempts == 0
    desk.take(job)
    desk.answer(job)
    assert desk.settled(job).attempts == 1


async def test_a_mail_that_keeps_losing_connections_lets_others_go_first() -> None:
    """From its second loss on a mail waits: it may be the one that the relay ends connections over."""
    desk = DeliveryHandler()
    job, other = desk.submit(), desk.submit()
    for _ in range(2):
        desk.take(job)
        desk.delivery.lost(job, CERTAIN)
    desk.take(other)
    assert desk.queue.empty()
    desk.clock.advance(retry.SCHEDULE[0])
    desk.take(job)


async def test_losses_are_retried_ever_later() -> None:
    """A relay that ends every connection, or answers each with 421, is asked less and less often."""
    desk = DeliveryHandler()
    job = desk.submit()
    for _ in range(4):
        desk.take(job)
        desk.delivery.lost(job, CERTAIN)
        desk.clock.advance(0 if not desk.queue.empty() else retry.SCHEDULE[-1])
    waits = [event.retry_after for event in desk.told(MailDeferred)]
    assert waits == sorted(set(waits))
    assert len(waits) == 3


async def test_an_uncertain_loss_is_sent_again_as_the_same_mail() -> None:
    """The same bytes, hence the same Message-ID: a mailbox that has it can tell. The try counts."""
    desk = DeliveryHandler()
    job = desk.submit()
    before = job.envelope, job.mail.message_id
    desk.take(job)
    desk.delivery.lost(job, UNCERTAIN)
    assert job.mail.attempts == 1
    desk.take(job)
    assert (job.envelope, job.mail.message_id) == before
    desk.answer(job)
    assert desk.settled(job).attempts == 2


async def test_no_more_copies_than_a_few() -> None:
    """A relay that takes each copy and never says so gets MOST_COPIES; certain losses between them do not count."""
    desk = DeliveryHandler()
    job = desk.submit()
    for number in range(1, MOST_COPIES + 1):
        for error in (CERTAIN, UNCERTAIN):
            desk.clock.advance(0 if not desk.queue.empty() else retry.SCHEDULE[-1])
            desk.take(job)
            desk.delivery.lost(job, error)
        assert job.attempts == number
    mail = desk.settled(job)
    assert (mail.state, mail.attempts) == (MailState.UNCERTAIN, MOST_COPIES)
    assert desk.queue.empty()
    assert desk.store.forgotten == []


@pytest.mark.parametrize(
    ("second", "state"),
    [(250, MailState.RELAYED), (550, MailState.UNCERTAIN), (451, MailState.UNCERTAIN), (421, MailState.UNCERTAIN)],
)
async def test_only_a_yes_ends_uncertainty(second: int, state: MailState) -> None:
    """What the relay says against the second copy says nothing of the first: it may have arrived."""
    desk = DeliveryHandler()
    job = desk.submit(ttl=100)
    desk.take(job)
    desk.delivery.lost(job, UNCERTAIN)
    desk.take(job)
    desk.answer(job, ada=second)
    desk.clock.advance(100)
    mail = desk.settled(job)
    assert mail.state is state
    assert mail.recipients[0].code == second
    assert desk.store.forgotten == []


async def test_uncertainty_is_each_recipients_own() -> None:
    """Who was refused before the loss was not in doubt, and who is taken after it no longer is: PARTIAL."""
    desk = DeliveryHandler()
    job = desk.submit("ada@x.org", "bob@x.org")
    desk.take(job)
    desk.answer(job, ada=550, bob=451)
    desk.clock.advance(retry.SCHEDULE[0])
    desk.take(job)
    desk.delivery.lost(job, UNCERTAIN)
    desk.take(job)
    desk.answer(job, bob=250)
    assert desk.settled(job).state is MailState.PARTIAL


async def test_one_recipient_in_doubt_makes_the_mail_uncertain() -> None:
    """Of two that may have got the mail, one is taken again and one refused: the latter may have it all the same."""
    desk = DeliveryHandler()
    job = desk.submit("ada@x.org", "bob@x.org")
    desk.take(job)
    desk.delivery.lost(job, UNCERTAIN)
    desk.take(job)
    desk.answer(job, ada=250, bob=550)
    assert desk.settled(job).state is MailState.UNCERTAIN


@pytest.mark.parametrize(("error", "final"), [(CERTAIN, False), (UNCERTAIN, True)])
async def test_uncertain_settles_where_a_second_copy_is_not_wanted(error: ConnectionLost, final: bool) -> None:  # noqa: FBT001
    """With EMAIL_ON_UNCERTAIN=fail a mail that may have left is not sent again; one that has not, is."""
    desk = DeliveryHandler(on_uncertain="fail")
    job = desk.submit()
    desk.take(job)
    desk.delivery.lost(job, error)
    assert job.settled is final
    if final:
        assert desk.settled(job).state is MailState.UNCERTAIN


@pytest.mark.parametrize(("error", "state"), [(CERTAIN, MailState.FAILED), (UNCERTAIN, MailState.UNCERTAIN)])
async def test_a_lost_mail_that_nobody_waits_for_settles(error: ConnectionLost, state: MailState) -> None:
    """No caller and no promise: there is no second try, and what may have left is said to be uncertain."""
    desk = DeliveryHandler()
    job = desk.submit(guaranteed=False)
    desk.take(job)
    desk.delivery.lost(job, error)
    assert desk.settled(job).state is state


async def test_a_deferred_mail_that_nobody_waits_for_fails() -> None:
    """The caller has gone while the relay was asked: nobody would hear of a further try."""
    desk = DeliveryHandler()
    job = desk.submit(guaranteed=False)
    desk.take(job)
    desk.answer(job, ada=451)
    assert desk.settled(job).state is MailState.FAILED


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("guaranteed", [False, True])
@pytest.mark.parametrize("callers", [0, 1])
async def test_giving_up(taken: bool, guaranteed: bool, callers: int) -> None:  # noqa: FBT001
    """A mail is taken back for want of callers only while it waits, and only if nobody was promised it."""
    desk = DeliveryHandler()
    job = desk.submit(guaranteed=guaranteed)
    job.callers = callers
    if taken:
        desk.take(job)
    desk.delivery.give_up(job)
    assert job.settled is (not taken and not guaranteed and not callers)
    if job.settled:
        assert desk.settled(job).state is MailState.CANCELLED
        assert desk.queue.empty()


async def test_cancelling() -> None:
    """A waiting mail is taken back for good; one that is being handed over is not."""
    desk = DeliveryHandler()
    job = desk.submit()
    desk.delivery.cancel(job)
    assert desk.settled(job).state is MailState.CANCELLED
    assert desk.queue.empty()
    other = desk.submit()
    desk.take(other)
    with pytest.raises(FailedPrecondition):
        desk.delivery.cancel(other)
    assert not other.settled


async def test_a_cancelled_mail_is_not_brought_back_by_its_retry() -> None:
    """Nothing is queued for a mail that has settled."""
    desk = DeliveryHandler()
    job = desk.submit()
    desk.take(job)
    desk.answer(job, ada=451)
    desk.delivery.cancel(job)
    desk.clock.advance(DAY)
    assert desk.queue.empty()
    assert desk.settled(job).state is MailState.CANCELLED


async def test_drained_when_all_have_settled() -> None:
    """Waits for the last of them, retries included; with none open it returns at once."""
    desk = DeliveryHandler()
    await desk.delivery.drained()
    jobs = [desk.submit(), desk.submit()]
    waiting = asyncio.create_task(desk.delivery.drained())
    desk.take(jobs[0])
    desk.answer(jobs[0])
    desk.take(jobs[1])
    desk.answer(jobs[1], ada=451)
    await asyncio.sleep(0)
    assert not waiting.done()
    desk.delivery.cancel(jobs[1])
    await waiting


async def test_abandoning_tells_whoever_waits() -> None:
    """At the end of a stop what is left fails, or is uncertain where the relay has it; callers hear Unavailable."""
    desk = DeliveryHandler()
    waiting, sending = desk.submit(), desk.submit()
    assert desk.queue.get_nowait() is waiting
    desk.take(sending)
    ends = {job: job.end(asyncio.get_running_loop()) for job in (waiting, sending)}
    assert desk.delivery.abandon() == 2
    for job, end in ends.items():
        with pytest.raises(Unavailable):
            end.result()
        assert job.mail.state is (MailState.UNCERTAIN if job is sending else MailState.FAILED)
        assert "stopped" in job.mail.recipients[0].reply
    assert desk.delivery.abandon() == 0
    await desk.delivery.drained()


async def test_nothing_is_taken_on_after_the_rest_was_abandoned() -> None:
    """A mail that comes when all others have been given up is refused: nobody would send it, or say how it ended."""
    desk = DeliveryHandler()
    desk.delivery.abandon()
    with pytest.raises(Unavailable):
        desk.submit()
    assert len(desk.delivery) == 0
    assert desk.queue.empty()
    assert desk.events == []
    await desk.delivery.drained()


_LATE: list[Callable[[DeliveryHandler, Job], None]] = [
    lambda desk, job: desk.answer(job),
    lambda desk, job: desk.answer(job, ada=451),
    lambda desk, job: desk.answer(job, ada=550),
    lambda desk, job: desk.delivery.lost(job, CERTAIN),
    lambda desk, job: desk.delivery.lost(job, UNCERTAIN),
]


@pytest.mark.parametrize("late", _LATE, ids=["relayed", "deferred", "refused", "lost", "uncertain"])
async def test_what_has_settled_stays_settled(late: Callable[[DeliveryHandler, Job], None]) -> None:
    """A worker's report that comes after the mail was abandoned neither settles it twice nor queues it again."""
    desk = DeliveryHandler()
    job = desk.submit()
    desk.take(job)
    desk.delivery.abandon()
    late(desk, job)
    desk.clock.advance(DAY)
    assert job.mail.state is MailState.UNCERTAIN
    assert len(desk.told(MailSettled)) == 1
    assert len(desk.store.settled) == 1
    assert desk.queue.empty()


async def test_watchers_see_the_way_of_a_mail() -> None:
    """Every state, a deferral's results included, and the final one last."""
    desk = DeliveryHandler()
    job = desk.submit()
    states: asyncio.Queue[Mail] = asyncio.Queue()
    job.watchers = (states,)
    desk.take(job)
    desk.answer(job, ada=451)
    desk.clock.advance(retry.SCHEDULE[0])
    desk.take(job)
    desk.answer(job)
    seen = [states.get_nowait() for _ in range(states.qsize())]
    assert [mail.state.name for mail in seen] == ["SENDING", "QUEUED", "SENDING", "RELAYED"]
    assert seen[1].recipients[0].code == 451
    assert seen[1].attempts == 1


async def test_the_repr_counts() -> None:
    """Open mails and the queue's lanes."""
    desk = DeliveryHandler()
    desk.submit()
    assert repr(desk.delivery) == "<Delivery 1 open, <MailQueue 0 urgent, 1 normal, 0 bulk>>"
