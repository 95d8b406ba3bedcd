"""Mails as a stream, with the real delivery and store, and a relay that is the test's own hand."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from sys import maxsize
from typing import Any

import pytest

from drafts import read_draft
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.queue import MailQueue
from otpmail.errors import InvalidArgument, Unavailable
from otpmail.events import ALL_EVENTS
from otpmail.mail.service import MAX_REQUEST_ID, MailService, Submission
from otpmail.mail.stream import MailStream, Outcome
from otpmail.model import Mail, MailState, Priority, RecipientResult, WaitFor
from otpmail.settings import MailSettings
from otpmail.store.memory import MemoryMailStore


@dataclass
class Asked:
    """A request: what is in it, and what reading it gives."""

    request_id: str
    wait_for: WaitFor = WaitFor.RELAY
    priority: Priority = Priority.NORMAL
    fault: Exception | None = None
    to: str = "ada@example.org"


async def submission_from(asked: Asked) -> Submission:
    """The order that it means."""
    if asked.fault is not None:
        raise asked.fault
    draft = read_draft(to=(asked.to,), subject="s", text="t")
    fingerprint = asked.to.encode()
    return Submission(
        draft=draft,
        priority=asked.priority,
        wait_for=asked.wait_for,
        request_id=asked.request_id,
        fingerprint=fingerprint,
    )


class RelayState:
    """Whether the relay is there."""

    down = False
    retry_after = 7.0


class DeliveryHandler:
    """A MailService with everything around it in the test's hands, and one stream of it."""

    event_types = ALL_EVENTS

    def __init__(self, *, most: int = 1000, queue_size: int = 1000, enough: int = maxsize) -> None:
        self.relay = RelayState()
        self.queue = MailQueue(enough=enough)
        self.store = MemoryMailStore(lambda: 1.0, remember_seconds=3600, remember_count=100)
        self.delivery = Lifecycle(self.queue, self.store, self, random=lambda: 0.5)
        settings = MailSettings(email_from="shop@example.org", queue_size=queue_size)
        self.mails = MailService(settings, self.delivery, self.store, self.relay)
        self.stream = MailStream(self.mails, self.queue, most=most)
        self.tasks: list[asyncio.Task[None]] = []

    def notify(self, event: Any) -> None:
        """Not of interest."""

    def take(self, *asked: Asked, stream: MailStream | None = None) -> "asyncio.Task[None]":
        """Hand a batch to the stream."""
        self.tasks.append(asyncio.create_task((stream or self.stream).take(asked, submission_from)))
        return self.tasks[-1]

    def settle(self, job: Job | None = None, code: int = 250) -> str:
        """Be worker and relay for a job, the next in the queue if none is given; returns its request's id."""
        job = self.queue.get_nowait() if job is None else job
        if job.state is MailState.QUEUED:
            self.queue.discard(job)
            assert self.delivery.begin(job)
        self.delivery.answered(job, tuple(RecipientResult(address, code, "", "said") for address in job.pending))
        return job.mail.request_id


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)


async def _turns() -> None:
    """Let everything that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def _states(outcomes: Iterable[Outcome]) -> dict[str, MailState | str]:
    return {name: told.state if isinstance(told, Mail) else str(told) for name, told in outcomes}


async def test_mails_are_answered_as_they_settle() -> None:
    """In the order of their ends, those that are ready together at once; the stream is over when all have their own."""
    desk = DeliveryHandler()
    await desk.take(*(Asked(name) for name in "abc"))
    first, second, third = (desk.queue.get_nowait() for _ in range(3))
    desk.settle(second)
    desk.settle(first, code=550)
    outcomes = await desk.stream.outcomes()
    assert [name for name, _ in outcomes] == ["b", "a"]
    assert _states(outcomes) == {"b": MailState.RELAYED, "a": MailState.FAILED}
    desk.stream.close()
    rest = asyncio.create_task(desk.stream.outcomes())
    await _turns()
    assert not rest.done()
    desk.settle(third)
    assert _states(await rest) == {"c": MailState.RELAYED}
    assert await desk.stream.outcomes() == []


async def _ready_of_many(
    count: int, ready: int = 4
) -> tuple[DeliveryHandler, list[Job], "asyncio.Task[list[Outcome]]"]:
    """A stream with so many mails unsettled, and who waits for outcomes, of which the first are there."""
    desk = DeliveryHandler()
    await desk.take(*(Asked(str(number)) for number in range(count)))
    jobs = [desk.queue.get_nowait() for _ in range(count)]
    answering = asyncio.create_task(desk.stream.outcomes())
    await _turns()
    for job in jobs[:ready]:
        desk.settle(job)
    await _turns()
    return desk, jobs, answering


async def test_a_few_outcomes_wait_for_more_while_many_mails_are_unsettled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until there are a hundred, or little more is to come, or a moment has passed."""
    monkeypatch.setattr("otpmail.mail.stream._TOGETHER_SECONDS", 600.0)
    desk, jobs, answering = await _ready_of_many(200)
    for job in jobs[4:99]:
        desk.settle(job)
    await _turns()
    assert not answering.done()
    desk.settle(jobs[99])
    async with asyncio.timeout(5):
        assert len(await answering) == 100

    desk, jobs, answering = await _ready_of_many(40)
    assert not answering.done()
    for job in jobs[4:9]:
        desk.settle(job)
    async with asyncio.timeout(5):
        assert len(await answering) == 9, "few are left now, and each is answered as it comes"
        desk.settle(jobs[9])
        assert len(await desk.stream.outcomes()) == 1

    monkeypatch.setattr("otpmail.mail.stream._TOGETHER_SECONDS", 0.001)
    _, _, answering = await _ready_of_many(40)
    async with asyncio.timeout(5):
        assert len(await answering) == 4


async def test_outcomes_wait_for_the_rest_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few are unsettled where the queue has enough, but many are to come, unless their stream is full."""
    monkeypatch.setattr("otpmail.mail.stream._TOGETHER_SECONDS", 600.0)
    desk = DeliveryHandler(enough=20)
    desk.take(*_asked(100))
    await _turns()
    answering = asyncio.create_task(desk.stream.outcomes())
    for _ in range(8):
        desk.settle()
    await _turns()
    assert desk.queue.qsize() == 24
    assert not answering.done()

    desk = DeliveryHandler(most=6)
    desk.take(*_asked(100))
    await _turns()
    answering = asyncio.create_task(desk.stream.outcomes())
    await _turns()
    for _ in range(4):
        desk.settle()
    async with asyncio.timeout(5):
        assert len(await answering) == 4


async def test_outcomes_that_come_one_by_one_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are unsettled: from a relay that is slow, or may be sent few, nothing else is about to come."""
    monkeypatch.setattr("otpmail.mail.stream._TOGETHER_SECONDS", 600.0)
    _, _, answering = await _ready_of_many(200, ready=3)
    async with asyncio.timeout(5):
        assert len(await answering) == 3


async def test_who_closes_a_stream_is_answered_what_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, however many are to come."""
    monkeypatch.setattr("otpmail.mail.stream._TOGETHER_SECONDS", 600.0)
    desk, _, answering = await _ready_of_many(40)
    desk.stream.close()
    async with asyncio.timeout(5):
        assert len(await answering) == 4


async def test_a_promise_is_answered_at_once() -> None:
    """With WAIT_FOR_QUEUE the outcome is the accepted mail, and the stream does not wait for its end to be over."""
    desk = DeliveryHandler()
    await desk.take(Asked("a", WaitFor.QUEUE))
    desk.stream.close()
    assert _states(await desk.stream.outcomes()) == {"a": MailState.QUEUED}
    assert await desk.stream.outcomes() == []
    desk.stream.leave()
    assert desk.settle() == "a"


async def test_what_is_wrong_with_one_is_its_own_outcome() -> None:
    """A field, an unforeseen error, a missing id, an id of another mail: the ones before and behind are taken."""
    desk = DeliveryHandler()
    wrong = InvalidArgument("priority", "17 is not a Priority")
    unforeseen = RuntimeError("boom")
    await desk.take(
        Asked("a"),
        Asked("b", fault=wrong),
        Asked("c", fault=unforeseen),
        Asked(""),
        Asked("d", to="nobody"),
        Asked("a", to="grace@example.org"),
        Asked("e"),
    )
    outcomes = await desk.stream.outcomes()
    assert outcomes[:2] == [("b", wrong), ("c", unforeseen)]
    assert [(name, getattr(told, "field", "")) for name, told in outcomes[2:]] == [
        ("", "request_id"),
        ("d", "to[0]"),
        ("a", "request_id"),
    ]
    assert [desk.settle(), desk.settle()] == ["a", "e"]


@pytest.mark.parametrize("fault", [None, RuntimeError("boom")])
async def test_a_request_id_that_is_too_long_comes_back_cut(fault: Exception | None) -> None:
    """Whatever else is wrong: a batch of them, returned whole, could be an answer too large for its caller to take."""
    desk = DeliveryHandler()
    longest = "x" * MAX_REQUEST_ID
    await desk.take(Asked(longest), Asked(f"{longest}y", fault=fault))
    ((name, told),) = await desk.stream.outcomes()
    assert name == longest
    assert told is fault if fault else isinstance(told, InvalidArgument)
    assert desk.settle() == longest


async def test_the_same_request_twice_is_one_mail() -> None:
    """It is mailed once, and each asking has its outcome, also when the mail has settled long ago."""
    desk = DeliveryHandler()
    await desk.take(Asked("a"), Asked("a"))
    desk.settle()
    assert desk.queue.empty()
    first, second = await desk.stream.outcomes()
    assert first == second
    await desk.take(Asked("a"))
    assert await desk.stream.outcomes() == [first]


@pytest.mark.parametrize("wait_for", list(WaitFor))
async def test_no_more_than_its_share_is_unsettled(wait_for: WaitFor) -> None:
    """A batch that is larger than what is left is worked through as mails settle and outcomes are answered."""
    desk = DeliveryHandler(most=3)
    taking = desk.take(*(Asked(str(number), wait_for) for number in range(10)))
    settled = answered = 0
    while settled < 10:
        await _turns()
        assert desk.queue.qsize() <= 3
        settled += bool(not desk.queue.empty() and desk.settle())
        assert settled - answered <= 3
        await _turns()
        if desk.stream._ready:
            outcomes = await desk.stream.outcomes()
            desk.stream.answered(len(outcomes))
            answered += len(outcomes)
    await taking
    assert answered == 10


async def test_what_nobody_answers_counts() -> None:
    """Neither settled mails nor refusals pile up: nothing more is taken until outcomes have gone."""
    desk = DeliveryHandler(most=2)
    taking = desk.take(Asked("a"), Asked("b", fault=InvalidArgument("to", "x")), Asked("c"))
    await _turns()
    desk.settle()
    await _turns()
    assert len(await desk.stream.outcomes()) == 2
    await _turns()
    assert desk.queue.empty()
    assert repr(desk.stream) == "<MailStream 0 unsettled, 2 unanswered>"
    desk.stream.answered(1)
    await taking
    assert desk.settle() == "c"


def _asked(count: int, wait_for: WaitFor = WaitFor.RELAY, priority: Priority = Priority.NORMAL) -> list[Asked]:
    return [Asked(f"{priority.name}-{number}", wait_for, priority) for number in range(count)]


async def test_a_queue_that_has_enough_is_brought_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn at a time, in batches of any size, and the next when few are left there: others' mails find it short."""
    monkeypatch.setattr("otpmail.mail.stream._PATIENCE_SECONDS", 600.0)
    desk = DeliveryHandler(enough=20)
    taking = desk.take(*_asked(20))
    await taking
    taking = desk.take(*_asked(70)[20:])
    await _turns()
    assert desk.queue.qsize() == 32
    for _ in range(21):
        desk.settle()
        desk.stream.answered(0)  # nor is it woken by answers
        await _turns()
    assert desk.queue.qsize() == 11
    desk.settle()
    await _turns()
    assert desk.queue.qsize() == 10 + 32
    while not taking.done():
        desk.settle()
        await _turns()
    assert desk.queue.qsize() == 10 + 6


async def test_a_lane_of_its_own_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes ahead of those that wait does not wait for them, be the mails around it as they may."""
    monkeypatch.setattr("otpmail.mail.stream._PATIENCE_SECONDS", 600.0)
    desk = DeliveryHandler(enough=20)
    await desk.take(*_asked(32))
    async with asyncio.timeout(5):
        await desk.take(Asked("one", priority=Priority.URGENT))
    waiting = desk.take(Asked("last"))
    await _turns()
    assert repr(desk.queue) == "<MailQueue 1 urgent, 32 normal, 0 bulk>"
    assert not waiting.done()


async def test_promised_mails_wait_for_the_queue_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a stream of them would keep it so long that others hardly had a turn."""
    monkeypatch.setattr("otpmail.mail.stream._PATIENCE_SECONDS", 600.0)
    desk = DeliveryHandler(enough=20)
    other = MailStream(desk.mails, desk.queue, most=1000)
    desk.take(*_asked(100, WaitFor.QUEUE))
    desk.take(*(Asked(f"other-{number}") for number in range(100)), stream=other)
    await _turns()
    assert desk.queue.qsize() == 64
    for _ in range(54):
        desk.settle()
        await _turns()
    assert desk.queue.qsize() == 10 + 32
    names = [job.request_id.partition("-")[0] for job in desk.queue._lanes[Priority.NORMAL]]
    assert names[-1] == "NORMAL", "who came first goes first"
    for _ in range(32):
        desk.settle()
        await _turns()
    assert [job.request_id.partition("-")[0] for job in desk.queue._lanes[Priority.NORMAL]][-1] == "other"


@pytest.mark.parametrize("why", ["away", "stop"])
async def test_refusals_do_not_wait_for_the_queue(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """Where the relay has gone, or the service stops, callers hear of all of theirs at once."""
    monkeypatch.setattr("otpmail.mail.stream._PATIENCE_SECONDS", 600.0)
    desk = DeliveryHandler(enough=20)
    await desk.take(*_asked(31))
    if why == "away":
        desk.relay.down = True
    else:
        desk.stream.refuse_mails()
    async with asyncio.timeout(5):
        await desk.take(*_asked(200)[31:])
    assert len(await desk.stream.outcomes()) == 200 - 31


async def test_a_queue_that_does_not_get_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others bring as many as leave, a stream has its turns all the same, and leaves nothing behind."""
    monkeypatch.setattr("otpmail.mail.stream._PATIENCE_SECONDS", 0.001)
    desk = DeliveryHandler(enough=20)
    async with asyncio.timeout(5):
        await desk.take(*_asked(100))
    assert desk.queue.qsize() == 100
    assert not any(desk.queue._producers)


async def test_a_stop_while_the_queue_has_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has not been taken on is refused at once."""
    monkeypatch.setattr("otpmail.mail.stream._PATIENCE_SECONDS", 600.0)
    desk = DeliveryHandler(enough=20)
    taking = desk.take(*_asked(33))
    await _turns()
    desk.stream.refuse_mails()
    await taking
    assert _states(await desk.stream.outcomes()) == {"NORMAL-32": "the service is stopping"}


async def test_a_full_queue_is_waited_for() -> None:
    """The stream is its own back-pressure, and the queue's last tenth is left to those who can't wait."""
    desk = DeliveryHandler(queue_size=10)
    other = MailStream(desk.mails, desk.queue, most=1000)
    one = desk.take(*(Asked(f"a{number}") for number in range(12)))
    two = desk.take(*(Asked(f"b{number}") for number in range(12)), stream=other)
    await _turns()
    assert desk.queue.qsize() == 9
    single = await desk.mails.accept(Submission(draft=read_draft(text="t")))
    desk.settle(single)
    while not (one.done() and two.done()):
        desk.settle()
        await _turns()
        assert desk.queue.qsize() <= 9
    names = {name for stream in (desk.stream, other) for name, _ in await stream.outcomes()}
    assert names | {desk.settle() for _ in range(desk.queue.qsize())} == {
        f"{who}{number}" for who in "ab" for number in range(12)
    }


async def test_a_stream_that_goes_while_it_waits_for_the_queue() -> None:
    """It takes no place, and others are woken all the same."""
    desk = DeliveryHandler(queue_size=1)
    other = MailStream(desk.mails, desk.queue, most=10)
    desk.take(Asked("a"))
    await _turns()
    waiting = desk.take(Asked("b"))
    behind = desk.take(Asked("c"), stream=other)
    await _turns()
    waiting.cancel()
    await _turns()
    assert waiting.cancelled()
    assert desk.settle() == "a"
    await behind
    assert desk.settle() == "c"


async def test_a_relay_that_is_away() -> None:
    """Who would wait for it is refused, at a full queue too; who was promised is not."""
    desk = DeliveryHandler(queue_size=1)
    desk.relay.down = True
    await desk.take(Asked("a"), Asked("b", WaitFor.QUEUE), Asked("c"))
    (a, first), (b, second), (c, third) = await desk.stream.outcomes()
    assert (a, b, c) == ("a", "b", "c")
    assert isinstance(first, Unavailable)
    assert isinstance(second, Mail)
    assert isinstance(third, Unavailable)


async def test_a_relay_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits at a full queue for it is told soon, though no mail settles any more."""
    monkeypatch.setattr("otpmail.mail.stream._LOOK_SECONDS", 0.001)
    desk = DeliveryHandler(queue_size=1)
    next_end, looks, many = desk.mails.next_end, 0, asyncio.Event()

    def looked() -> "asyncio.Future[None]":
        nonlocal looks
        looks += 1
        if looks == 20:
            many.set()
        return next_end()

    monkeypatch.setattr(desk.mails, "next_end", looked)
    taking = desk.take(Asked("a"), Asked("b"))
    await many.wait()
    assert not taking.done()
    assert len(desk.delivery._next_end) <= 2  # a look leaves nothing behind
    desk.relay.down = True
    await taking
    assert _states(await desk.stream.outcomes()) == {"b": "the relay can't be reached at the moment"}


async def test_who_leaves_gives_up_what_waits() -> None:
    """With the relay it settles, promised it settles, asked for by another too it settles; else it is cancelled."""
    desk = DeliveryHandler()
    other = MailStream(desk.mails, desk.queue, most=10)
    await desk.take(Asked("sending"), Asked("waiting"), Asked("guaranteed", WaitFor.QUEUE), Asked("shared"))
    await desk.take(Asked("shared"), stream=other)
    sending = desk.queue.get_nowait()
    assert desk.delivery.begin(sending)
    desk.stream.leave()
    assert repr(desk.stream) == "<MailStream 0 unsettled, 1 unanswered>"
    desk.settle(sending)
    assert [desk.settle(), desk.settle()] == ["guaranteed", "shared"]
    assert desk.queue.empty()
    assert len(desk.delivery) == 0
    assert _states(await other.outcomes()) == {"shared": MailState.RELAYED}
    await desk.take(Asked("waiting"), stream=other)  # nothing was decided of it: it may come again
    assert desk.settle() == "waiting"


async def test_a_stop() -> None:
    """What comes is refused, what is unsettled is awaited, and then the stream is over, with a reason."""
    desk = DeliveryHandler()
    await desk.take(Asked("a"))
    desk.stream.refuse_mails()
    await desk.take(Asked("b"))
    assert _states(await desk.stream.outcomes()) == {"b": "the service is stopping"}
    desk.settle()
    assert _states(await desk.stream.outcomes()) == {"a": MailState.RELAYED}
    assert await desk.stream.outcomes() == []
    assert isinstance(desk.stream.fault, Unavailable)


async def test_a_stop_of_a_stream_without_mails() -> None:
    """It is over at once; one that its caller has closed before has no reason to give."""
    desk = DeliveryHandler()
    waiting = asyncio.create_task(desk.stream.outcomes())
    await _turns()
    desk.stream.refuse_mails()
    assert await waiting == []
    assert desk.stream.fault is not None


@pytest.mark.parametrize("first", ["close", "refuse_mails"])
async def test_a_stop_of_a_stream_that_is_closed(first: str) -> None:
    """It is over once it is answered, and well, whichever came first."""
    desk = DeliveryHandler()
    await desk.take(Asked("a"))
    for step in sorted(("close", "refuse_mails"), key=lambda step: step != first):
        getattr(desk.stream, step)()
    desk.settle()
    assert _states(await desk.stream.outcomes()) == {"a": MailState.RELAYED}
    assert await desk.stream.outcomes() == []
    assert desk.stream.fault is None


async def test_a_stop_in_the_middle_of_a_batch() -> None:
    """Every mail of it is answered before the stream is over, those for which there was no room too."""
    desk = DeliveryHandler(most=2, queue_size=2)
    taking = desk.take(Asked("a"), Asked("b"), Asked("c"), Asked("d"))
    await _turns()
    desk.stream.refuse_mails()
    states: dict[str, MailState | str] = {}
    with suppress(asyncio.QueueEmpty):
        desk.settle()
        desk.settle()
    while outcomes := await desk.stream.outcomes():
        states |= _states(outcomes)
        desk.stream.answered(len(outcomes))
    await taking
    assert [states[name] for name in "ab"] == [MailState.RELAYED] * 2
    assert [states[name] for name in "cd"] == ["the service is stopping"] * 2


async def test_the_end_of_a_stop() -> None:
    """A mail that had no time left to settle is UNAVAILABLE."""
    desk = DeliveryHandler()
    await desk.take(Asked("a"))
    desk.stream.refuse_mails()
    desk.delivery.abandon()
    ((name, told),) = await desk.stream.outcomes()
    assert name == "a"
    assert isinstance(told, Unavailable)


async def test_others_have_the_loop_within_a_batch() -> None:
    """However large it is."""
    desk = DeliveryHandler()
    taking = desk.take(*(Asked(str(number)) for number in range(500)))
    seen = set()
    while not taking.done():
        seen.add(desk.queue.qsize())
        await asyncio.sleep(0)
    assert len(seen) > 10
