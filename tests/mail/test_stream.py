"""Mails as a stream, with the real delivery and store, and a relay that is the test's own hand."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from drafts import read_draft
from otpmail.delivery.job import Job
from otpmail.errors import InvalidArgument, Unavailable
from otpmail.mail.idempotency import MAX_REQUEST_ID
from otpmail.mail.stream import MailStream, Outcome, patience_for
from otpmail.mail.submission import Submission
from otpmail.model import Mail, MailState, Priority, WaitFor
from otpmail.store.base import Accepted, Conflict, Earlier, Entry, Request, Running
from otpmail.store.memory.mails import MemoryMailStore
from otpmail.store.retention import Retention
from rig import NOW, MailRig, call_of

pytestmark = pytest.mark.usefixtures("empty_directory")


@dataclass
class Asked:
    """A request: what is in it, and what reading it gives."""

    request_id: str
    wait_for: WaitFor = WaitFor.RELAY
    priority: Priority = Priority.NORMAL
    fault: Exception | None = None
    to: str = "ada@example.org"


async def submission_from(asked: Asked) -> Submission:
    """Return the submission that it stands for."""
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


async def _take(stream: MailStream, asked: Iterable[Asked], decode: Callable[[Asked], Awaitable[Submission]]) -> None:
    """Hand a batch to the stream when its turn comes."""
    await stream.begin()
    await stream.take(asked, decode)


class Rig(MailRig):
    """A MailService with one stream of it. `together` is how long outcomes wait for others."""

    def __init__(self, *, most: int = 1000, together: float = 600.0, **more: Any) -> None:
        super().__init__(**{"queue_size": 1000, **more})
        self.together = together
        self.stream = self.another_stream(most=most)
        self.tasks: list[asyncio.Task[None]] = []

    def another_stream(self, most: int = 1000) -> MailStream:
        """Return a further stream of the same service."""
        return MailStream(self.mails, call_of(), most=most, together=self.together)

    def take(self, *asked: Asked, stream: MailStream | None = None) -> "asyncio.Task[None]":
        """Hand a batch to the stream."""
        self.tasks.append(asyncio.create_task(_take(stream or self.stream, asked, submission_from)))
        return self.tasks[-1]


async def _turns() -> None:
    """Let everything that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def _states(outcomes: Iterable[Outcome]) -> dict[str, MailState | str]:
    return {name: told.state if isinstance(told, Mail) else str(told) for name, told in outcomes}


async def test_a_mail_that_a_stream_waits_for_has_the_time_of_a_wait() -> None:
    """The results of a stream are final, so its mail without a ttl has MAIL_WAIT_SECONDS; a guaranteed one MAIL_TTL."""
    rig = Rig(mail_wait_seconds=60, mail_ttl=1000)
    await rig.take(Asked("a"), Asked("b", wait_for=WaitFor.QUEUE))
    assert [rig.queue.get_nowait().deadline for _ in range(2)] == [rig.now + 60, rig.now + 1000]


async def test_mails_are_answered_as_they_settle() -> None:
    """Outcomes come in the order of their ends, those that are ready together; the stream ends once all have come."""
    rig = Rig()
    await rig.take(*(Asked(name) for name in "abc"))
    first, second, third = (rig.queue.get_nowait() for _ in range(3))
    rig.settle(second)
    rig.settle(first, code=550)
    outcomes = await rig.stream.outcomes()
    assert [name for name, _ in outcomes] == ["b", "a"]
    assert _states(outcomes) == {"b": MailState.RELAYED, "a": MailState.FAILED}
    rig.stream.close()
    rest = asyncio.create_task(rig.stream.outcomes())
    await _turns()
    assert not rest.done()
    rig.settle(third)
    assert _states(await rest) == {"c": MailState.RELAYED}
    assert await rig.stream.outcomes() == []


async def _ready_of_many(
    count: int, ready: int = 4, together: float = 600.0
) -> tuple[Rig, list[Job], "asyncio.Task[list[Outcome]]"]:
    """A stream with so many mails unsettled, and who waits for outcomes, of which the first are there."""
    rig = Rig(together=together)
    await rig.take(*(Asked(str(number)) for number in range(count)))
    jobs = [rig.queue.get_nowait() for _ in range(count)]
    answering = asyncio.create_task(rig.stream.outcomes())
    await _turns()
    for job in jobs[:ready]:
        rig.settle(job)
    await _turns()
    return rig, jobs, answering


async def test_a_few_outcomes_wait_for_more_while_many_mails_are_unsettled() -> None:
    """Few outcomes wait until there are a hundred, little more is to come, or a moment has passed."""
    rig, jobs, answering = await _ready_of_many(200)
    for job in jobs[4:99]:
        rig.settle(job)
    await _turns()
    assert not answering.done()
    rig.settle(jobs[99])
    async with asyncio.timeout(20):
        assert len(await answering) == 100

    rig, jobs, answering = await _ready_of_many(40)
    assert not answering.done()
    for job in jobs[4:9]:
        rig.settle(job)
    async with asyncio.timeout(20):
        assert len(await answering) == 9, "few are left now, and each is answered as it comes"
        rig.settle(jobs[9])
        assert len(await rig.stream.outcomes()) == 1

    _, _, answering = await _ready_of_many(40, together=0.001)
    async with asyncio.timeout(20):
        assert len(await answering) == 4


@pytest.mark.parametrize(("took", "waits"), [(0.004, 0.008), (0.06, 0.015), (9.0, 0.025), (None, 0.008)])
def test_outcomes_wait_longer_where_mails_take_long(took: float | None, waits: float) -> None:
    """Outcomes wait for others for a quarter of what a mail took, but 8 to 25 ms; errors for no longer than 8."""
    mail = Mail("id", "anonymous", "<id@example.org>", NOW, settle_time=None if took is None else NOW + took)
    assert patience_for(mail, 0.008) == pytest.approx(waits, rel=1e-3)
    assert patience_for(InvalidArgument("to", "is empty"), 0.008) == 0.008


async def test_outcomes_wait_for_the_rest_of_a_batch() -> None:
    """Outcomes wait while more of a batch is to come, though few mails are unsettled, unless the stream is full."""
    rig = Rig(high_water=20)
    rig.take(*_asked(100))
    await _turns()
    answering = asyncio.create_task(rig.stream.outcomes())
    for _ in range(8):
        rig.settle()
    await _turns()
    assert rig.queue.qsize() == 24
    assert not answering.done()

    rig = Rig(most=6)
    rig.take(*_asked(100))
    await _turns()
    answering = asyncio.create_task(rig.stream.outcomes())
    await _turns()
    for _ in range(4):
        rig.settle()
    async with asyncio.timeout(20):
        assert len(await answering) == 4


async def test_outcomes_wait_for_a_batch_that_waits_for_its_turn() -> None:
    """Outcomes wait from the turn of the next batch until its mails are accepted, however few they are."""
    rig, jobs, answering = await _ready_of_many(2, ready=0)
    await rig.stream.begin()
    rig.settle(jobs[0])
    await _turns()
    assert not answering.done()
    await rig.take()
    async with asyncio.timeout(20):
        assert len(await answering) == 1


async def test_outcomes_that_come_one_by_one_do_not_wait() -> None:
    """Outcomes that come one by one do not wait, however many mails are unsettled, since none is about to follow."""
    _, _, answering = await _ready_of_many(200, ready=3)
    async with asyncio.timeout(20):
        assert len(await answering) == 3


async def test_a_stream_that_is_closed_while_it_waits_returns_what_is_ready() -> None:
    """A stream that is closed returns its ready outcomes at once, however many are still to come."""
    rig, _, answering = await _ready_of_many(40)
    rig.stream.close()
    async with asyncio.timeout(20):
        assert len(await answering) == 4


async def test_a_guaranteed_mail_is_answered_at_once() -> None:
    """With WAIT_FOR_QUEUE the outcome is the accepted mail, and the stream does not wait for its end to be over."""
    rig = Rig()
    await rig.take(Asked("a", WaitFor.QUEUE))
    rig.stream.close()
    assert _states(await rig.stream.outcomes()) == {"a": MailState.QUEUED}
    assert await rig.stream.outcomes() == []
    rig.stream.leave()
    assert rig.settle().request_id == "a"


async def test_what_is_wrong_with_one_is_its_own_outcome() -> None:
    """A faulty mail of a batch has an outcome of its own, and those before and behind it are accepted."""
    rig = Rig()
    wrong = InvalidArgument("priority", "17 is not a Priority")
    unforeseen = RuntimeError("boom")
    await rig.take(
        Asked("a"),
        Asked("b", fault=wrong),
        Asked("c", fault=unforeseen),
        Asked(""),
        Asked("d", to="nobody"),
        Asked("a", to="grace@example.org"),
        Asked("e"),
    )
    outcomes = await rig.stream.outcomes()
    assert outcomes[:2] == [("b", wrong), ("c", unforeseen)]
    assert [(name, getattr(told, "field", "")) for name, told in outcomes[2:]] == [
        ("", "request_id"),
        ("d", "to[0]"),
        ("a", "request_id"),
    ]
    assert [rig.settle().request_id, rig.settle().request_id] == ["a", "e"]


@pytest.mark.parametrize("fault", [None, RuntimeError("boom")])
async def test_a_request_id_that_is_too_long_comes_back_cut(fault: Exception | None) -> None:
    """An outcome holds a request id cut to its greatest length, so that no batch makes an answer too large."""
    rig = Rig()
    longest = "x" * MAX_REQUEST_ID
    await rig.take(Asked(longest), Asked(f"{longest}y", fault=fault))
    ((name, told),) = await rig.stream.outcomes()
    assert name == longest
    assert told is fault if fault else isinstance(told, InvalidArgument)
    assert rig.settle().request_id == longest


async def test_the_same_request_twice_is_one_mail() -> None:
    """The service sends a repeated request once and gives each an outcome, even long after the mail has settled."""
    rig = Rig()
    await rig.take(Asked("a"), Asked("a"))
    rig.settle()
    assert rig.queue.empty()
    first, second = await rig.stream.outcomes()
    assert first == second
    await rig.take(Asked("a"))
    assert await rig.stream.outcomes() == [first]


@pytest.mark.parametrize("wait_for", list(WaitFor))
async def test_no_more_than_its_share_is_unsettled(wait_for: WaitFor) -> None:
    """A batch that is larger than what is left is worked through as mails settle and outcomes are answered."""
    rig = Rig(most=3)
    taking = rig.take(*(Asked(str(number), wait_for) for number in range(10)))
    settled = answered = 0
    while settled < 10:
        await _turns()
        assert rig.queue.qsize() <= 3
        settled += bool(not rig.queue.empty() and rig.settle())
        assert settled - answered <= 3
        await _turns()
        if rig.stream._ready:
            outcomes = await rig.stream.outcomes()
            rig.stream.answered(len(outcomes))
            answered += len(outcomes)
    await taking
    assert answered == 10


async def test_what_nobody_answers_counts() -> None:
    """The stream takes nothing more until outcomes are answered, so neither settled mails nor refusals pile up."""
    rig = Rig(most=2)
    taking = rig.take(Asked("a"), Asked("b", fault=InvalidArgument("to", "x")), Asked("c"))
    await _turns()
    rig.settle()
    await _turns()
    assert len(await rig.stream.outcomes()) == 2
    await _turns()
    assert rig.queue.empty()
    assert repr(rig.stream) == "<MailStream 0 unsettled, <Producer 2 of 2 outstanding>>"
    rig.stream.answered(1)
    await taking
    assert rig.settle().request_id == "c"


def _asked(count: int, wait_for: WaitFor = WaitFor.RELAY, priority: Priority = Priority.NORMAL) -> list[Asked]:
    return [Asked(f"{priority.name}-{number}", wait_for, priority) for number in range(count)]


async def test_a_queue_that_has_enough_is_brought_no_more() -> None:
    """A stream puts one turn of mails and the next at low water, so that other callers' mails find a short queue."""
    rig = Rig(high_water=20)
    taking = rig.take(*_asked(20))
    await taking
    taking = rig.take(*_asked(70)[20:])
    await _turns()
    assert rig.queue.qsize() == 32
    for _ in range(21):
        rig.settle()
        rig.stream.answered(0)  # answers do not end the pause
        await _turns()
    assert rig.queue.qsize() == 11
    rig.settle()
    await _turns()
    assert rig.queue.qsize() == 10 + 32
    while not taking.done():
        rig.settle()
        await _turns()
    assert rig.queue.qsize() == 10 + 6


async def test_a_lane_of_its_own_is_not_waited_for() -> None:
    """An urgent mail does not wait for the lanes behind it, whatever their length."""
    rig = Rig(high_water=20)
    await rig.take(*_asked(32))
    async with asyncio.timeout(20):
        await rig.take(Asked("one", priority=Priority.URGENT))
    waiting = rig.take(Asked("last"))
    await _turns()
    assert repr(rig.queue) == "<MailQueue 1 urgent, 32 normal, 0 bulk>"
    assert not waiting.done()


def _last(rig: Rig) -> str:
    """Return whose mail is the last in the lane, where all are of one source."""
    (jobs,) = rig.queue.lanes[Priority.NORMAL].values()
    return list(jobs)[-1].request_id.partition("-")[0]


async def test_guaranteed_mails_wait_for_the_queue_too() -> None:
    """Guaranteed mails wait at the high-water mark too, so that one stream does not fill the queue."""
    rig = Rig(high_water=20)
    other = rig.another_stream()
    rig.take(*_asked(100, WaitFor.QUEUE))
    rig.take(*(Asked(f"other-{number}") for number in range(100)), stream=other)
    await _turns()
    assert rig.queue.qsize() == 64
    for _ in range(54):
        rig.settle()
        await _turns()
    assert rig.queue.qsize() == 10 + 32
    assert _last(rig) == "NORMAL", "the first to come goes first"
    for _ in range(32):
        rig.settle()
        await _turns()
    assert _last(rig) == "other"


@pytest.mark.parametrize("why", ["away", "stop"])
async def test_refusals_do_not_wait_for_the_queue(why: str) -> None:
    """Callers get all their refusals at once if the relay is down or the service stops."""
    rig = Rig(high_water=20)
    await rig.take(*_asked(31))
    if why == "away":
        rig.relay.down = True
    else:
        rig.admission.close()
    async with asyncio.timeout(20):
        await rig.take(*_asked(200)[31:])
    assert len(await rig.stream.outcomes()) == 200 - 31


async def test_a_queue_that_does_not_get_short() -> None:
    """A stream gets its turns though other producers put as many mails as leave, and leaves nothing behind."""
    rig = Rig(high_water=20, pause=0.001)
    async with asyncio.timeout(20):
        await rig.take(*_asked(100))
    assert rig.queue.qsize() == 100
    assert not any(rig.queue._producers)


async def test_a_stop_while_the_queue_has_enough() -> None:
    """Mails that have not been accepted are rejected at once."""
    rig = Rig(high_water=20)
    taking = rig.take(*_asked(33))
    await _turns()
    rig.admission.close()
    await taking
    assert _states(await rig.stream.outcomes()) == {"NORMAL-32": "the service is stopping"}


async def test_a_full_queue_is_waited_for() -> None:
    """The stream is its own back-pressure, and the queue's last tenth is left to urgent mails."""
    rig = Rig(queue_size=10)
    other = rig.another_stream()
    one = rig.take(*(Asked(f"a{number}") for number in range(12)))
    two = rig.take(*(Asked(f"b{number}") for number in range(12)), stream=other)
    await _turns()
    assert rig.queue.qsize() == 9
    single = await rig.mails.accept(call_of(), Submission(draft=read_draft(text="t"), priority=Priority.URGENT))
    rig.settle(single)
    while not (one.done() and two.done()):
        rig.settle()
        await _turns()
        assert rig.queue.qsize() <= 9
    names = {name for stream in (rig.stream, other) for name, _ in await stream.outcomes()}
    assert names | {rig.settle().request_id for _ in range(rig.queue.qsize())} == {
        f"{who}{number}" for who in "ab" for number in range(12)
    }


async def test_a_stream_that_goes_while_it_waits_for_the_queue() -> None:
    """A stream that ends takes no place, and other streams are woken all the same."""
    rig = Rig(queue_size=1)
    other = rig.another_stream(10)
    rig.take(Asked("a"))
    await _turns()
    waiting = rig.take(Asked("b"))
    behind = rig.take(Asked("c"), stream=other)
    await _turns()
    waiting.cancel()
    await _turns()
    assert waiting.cancelled()
    assert rig.settle().request_id == "a"
    await behind
    assert rig.settle().request_id == "c"


async def test_a_relay_that_is_down() -> None:
    """A mail that would wait for the relay is rejected, at a full queue too; a guaranteed mail is accepted."""
    rig = Rig(queue_size=1)
    rig.relay.down = True
    await rig.take(Asked("a"), Asked("b", WaitFor.QUEUE), Asked("c"))
    (a, first), (b, second), (c, third) = await rig.stream.outcomes()
    assert (a, b, c) == ("a", "b", "c")
    assert isinstance(first, Unavailable)
    assert isinstance(second, Mail)
    assert isinstance(third, Unavailable)


async def test_a_place_that_a_refused_mail_gives_back() -> None:
    """A refused mail's place goes to a waiting stream at once, though no mail settles."""
    rig = Rig(queue_size=1)
    with suppress(InvalidArgument), rig.admission.reserve(call_of(), WaitFor.QUEUE, Priority.NORMAL):
        taking = rig.take(Asked("a"))
        await _turns()
        assert not taking.done()
        raise InvalidArgument("text", "is wrong")
    async with asyncio.timeout(20):
        await taking
    assert rig.queue.get_nowait().request_id == "a"


async def test_a_relay_that_goes_down_while_a_stream_waits_for_a_place() -> None:
    """A mail that waits for a place in the full queue is refused soon, though no other mail settles."""
    rig = Rig(queue_size=1, look=0.001)
    taking = rig.take(Asked("a"), Asked("b"))
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not taking.done()
    rig.relay.down = True
    await taking
    assert _states(await rig.stream.outcomes()) == {"b": "the relay is down"}


async def test_leaving_a_stream_cancels_its_queued_mails() -> None:
    """A mail settles if the relay has it, if it is guaranteed or if another call waits; else it is cancelled."""
    rig = Rig()
    other = rig.another_stream(10)
    await rig.take(Asked("sending"), Asked("waiting"), Asked("guaranteed", WaitFor.QUEUE), Asked("shared"))
    await rig.take(Asked("shared"), stream=other)
    sending = rig.queue.get_nowait()
    assert rig.lifecycle.start(sending)
    rig.stream.leave()
    assert repr(rig.stream) == "<MailStream 0 unsettled, <Producer 5 of 1000 outstanding>>"
    rig.settle(sending)
    assert [rig.settle().request_id, rig.settle().request_id] == ["guaranteed", "shared"]
    assert rig.queue.empty()
    assert len(rig.lifecycle) == 0
    assert _states(await other.outcomes()) == {"shared": MailState.RELAYED}
    await rig.take(Asked("waiting"), stream=other)  # nothing was decided of it: it may come again
    assert rig.settle().request_id == "waiting"


async def test_a_stop() -> None:
    """New mails are rejected, unsettled ones are awaited, and then the stream ends with an error that says why."""
    rig = Rig()
    await rig.take(Asked("a"))
    rig.admission.close()
    await rig.take(Asked("b"))
    assert _states(await rig.stream.outcomes()) == {"b": "the service is stopping"}
    rig.settle()
    assert _states(await rig.stream.outcomes()) == {"a": MailState.RELAYED}
    assert await rig.stream.outcomes() == []
    assert isinstance(rig.stream.fault, Unavailable)


async def test_a_stop_of_a_stream_without_mails() -> None:
    """A stream without mails ends at once, without an error if its caller has closed it before."""
    rig = Rig()
    waiting = asyncio.create_task(rig.stream.outcomes())
    await _turns()
    rig.admission.close()
    assert await waiting == []
    assert rig.stream.fault is not None


@pytest.mark.parametrize("first", ["stream", "admission"])
async def test_a_stop_of_a_stream_that_is_closed(first: str) -> None:
    """A closed stream ends without an error once all is answered, whether the stop or the close came first."""
    rig = Rig()
    await rig.take(Asked("a"))
    for step in sorted(("stream", "admission"), key=lambda step: step != first):
        getattr(rig, step).close()
    rig.settle()
    assert _states(await rig.stream.outcomes()) == {"a": MailState.RELAYED}
    assert await rig.stream.outcomes() == []
    assert rig.stream.fault is None


async def test_a_stop_in_the_middle_of_a_batch() -> None:
    """A stop answers every mail of a batch before the stream ends, also those for which there was no room."""
    rig = Rig(most=2, queue_size=2)
    taking = rig.take(Asked("a"), Asked("b"), Asked("c"), Asked("d"))
    await _turns()
    rig.admission.close()
    states: dict[str, MailState | str] = {}
    with suppress(asyncio.QueueEmpty):
        rig.settle()
        rig.settle()
    while outcomes := await rig.stream.outcomes():
        states |= _states(outcomes)
        rig.stream.answered(len(outcomes))
    await taking
    assert [states[name] for name in "ab"] == [MailState.RELAYED] * 2
    assert [states[name] for name in "cd"] == ["the service is stopping"] * 2


async def test_the_end_of_a_stop() -> None:
    """A mail that had no time left to settle is UNAVAILABLE."""
    rig = Rig()
    await rig.take(Asked("a"))
    rig.admission.close()
    rig.lifecycle.close()
    ((name, told),) = await rig.stream.outcomes()
    assert name == "a"
    assert isinstance(told, Unavailable)


class Slow:
    """A clock on which each mail takes so many seconds to read."""

    def __init__(self, seconds: float) -> None:
        self.now = 0.0
        self.read: list[str] = []
        self._seconds = seconds

    def __call__(self) -> float:
        """Seconds."""
        return self.now

    async def submission_from(self, asked: Asked) -> Submission:
        """Read a mail."""
        self.now += self._seconds
        self.read.append(asked.request_id)
        return await submission_from(asked)


@pytest.mark.parametrize(("seconds", "mails"), [(0.0001, 20), (0.001, 2), (5.0, 1)])
async def test_others_have_the_loop_within_a_batch(seconds: float, mails: int) -> None:
    """A stream lets others have the loop after two milliseconds, be that after one mail or after many."""
    clock = Slow(seconds)
    rig = Rig(clock=clock)
    taking = asyncio.create_task(_take(rig.stream, _asked(100), clock.submission_from))
    steps = {0}
    while not taking.done():
        steps.add(rig.queue.qsize())
        await asyncio.sleep(0)
    taken = sorted(steps)
    assert {after - before for before, after in pairwise(taken)} <= {mails, mails + 1}
    assert taken[-1] >= 100 - mails


async def test_all_streams_together_hold_the_loop_no_longer_than_one() -> None:
    """Of several streams one begins or goes on in each round of the loop, each in its turn."""
    clock = Slow(0.001)
    rig = Rig(clock=clock)
    streams = [rig.another_stream() for _ in range(5)]
    tasks = [
        asyncio.create_task(_take(stream, [Asked(f"{name}-{number}") for number in range(50)], clock.submission_from))
        for name, stream in enumerate(streams)
    ]
    before = 0
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        assert rig.queue.qsize() - before <= 3
        before = rig.queue.qsize()
    order = [name.partition("-")[0] for name in clock.read]
    counts = Counter(order[:200])
    assert min(counts[name] for name in "01234") >= 38, "none is far ahead of the others"


async def test_a_stream_that_ends_while_it_waits_for_its_turn_holds_up_no_other() -> None:
    """The turn of a stream that was cancelled goes to the next one."""
    clock = Slow(5.0)
    rig = Rig(clock=clock)
    gone, stays = (asyncio.create_task(_take(rig.another_stream(), _asked(3), clock.submission_from)) for _ in range(2))
    await asyncio.sleep(0)
    assert "2 waiting" in repr(rig.admission.turns)
    gone.cancel()
    async with asyncio.timeout(20):
        await stays
    assert gone.cancelled()
    assert "0 waiting" in repr(rig.admission.turns)


# A durable store.


class DurableStore(MemoryMailStore):
    """A store whose commits a test lets happen: until `commits` is set, `asked` mails wait for one."""

    durable = True

    def __init__(self) -> None:
        super().__init__(lambda: NOW, retention=Retention(seconds=3600, count=1000))
        self.commits = asyncio.Event()
        self.asked = 0

    async def accept(self, entries: Sequence[Entry]) -> list[Accepted | Earlier | Running | Conflict]:
        """Keep mails with the next commit."""
        self.asked += len(entries)
        await self.commits.wait()
        return await super().accept(entries)

    async def claim(self, request: Request, mail_id: str) -> Accepted | Earlier | Running | Conflict:
        """Keep a request id with the next commit."""
        self.asked += 1
        await self.commits.wait()
        return await super().claim(request, mail_id)


@pytest.mark.parametrize("wait_for", WaitFor)
async def test_the_mails_of_a_batch_share_a_commit(wait_for: WaitFor) -> None:
    """A stream brings its next mails while a durable store keeps the ones before; an error is that mail's alone."""
    store = DurableStore()
    rig = Rig(store=store)
    fault = InvalidArgument("to", "is wrong")
    taking = rig.take(*(Asked(str(number), wait_for) for number in range(50)), Asked("bad", fault=fault))
    async with asyncio.timeout(20):
        while store.asked < 50:  # noqa: ASYNC110  the store notifies nobody
            await asyncio.sleep(0)
    assert rig.queue.empty()
    store.commits.set()
    await taking
    jobs = [await asyncio.wait_for(rig.queue.get(), 20) for _ in range(50)]
    assert [job.request_id for job in jobs] == [str(number) for number in range(50)]
    for job in jobs:
        rig.settle(job)
    rig.stream.close()
    outcomes = dict(await rig.stream.outcomes())
    assert outcomes.keys() == {*map(str, range(50)), "bad"}
    assert outcomes["bad"] is fault


async def test_a_stream_reads_on_while_the_store_keeps_its_mails() -> None:
    """A stream takes its next batches while few of its mails wait for a commit, and it ends once all have outcomes."""
    store = DurableStore()
    rig = Rig(store=store)
    kept: list[int] = []
    rig.stream.call_when_kept(lambda: kept.append(0))
    assert kept == [0]
    async with asyncio.timeout(20):
        for batch in range(1, 4):
            await rig.take(*(Asked(f"{batch}-{number}", WaitFor.QUEUE) for number in range(100)))
            rig.stream.call_when_kept(partial(kept.append, batch))
    last = rig.take(*(Asked(f"4-{number}", WaitFor.QUEUE) for number in range(100)))
    await _turns()
    assert (last.done(), kept, store.asked) == (False, [0], 400)
    answering = asyncio.create_task(_outcomes(rig.stream))
    store.commits.set()
    await asyncio.wait_for(last, 20)
    rig.stream.close()
    assert len(await asyncio.wait_for(answering, 20)) == 400
    assert kept == [0, 1, 2, 3]


async def _outcomes(stream: MailStream) -> list[Outcome]:
    """Return all outcomes of a stream, which are read as they come."""
    found: list[Outcome] = []
    while outcomes := await stream.outcomes():
        found += outcomes
        stream.answered(len(outcomes))
    return found


async def test_a_stream_waits_for_places_with_a_durable_store() -> None:
    """Mails that a durable store has claimed wait for their places one after the other, and all come in."""
    store = DurableStore()
    store.commits.set()
    rig = Rig(store=store, queue_size=20)
    taking = rig.take(*(Asked(str(number)) for number in range(100)))
    settled = 0
    async with asyncio.timeout(20):
        while settled < 100:
            await asyncio.sleep(0)
            assert len(rig.lifecycle) <= 20
            if not rig.queue.empty():
                rig.settle(rig.queue.get_nowait())
                settled += 1
        await taking
    rig.stream.close()
    assert len(await rig.stream.outcomes()) == 100


@pytest.mark.parametrize("mails", [10, 350])
async def test_a_stream_that_is_cancelled_while_the_store_keeps_its_mails(mails: int) -> None:
    """None of its mails is sent, and their request ids are free again."""
    store = DurableStore()
    rig = Rig(store=store)
    taking = rig.take(*(Asked(str(number), WaitFor.QUEUE) for number in range(mails)))
    async with asyncio.timeout(20):
        while store.asked < mails:  # noqa: ASYNC110  as above
            await asyncio.sleep(0)
    taking.cancel()
    await _turns()
    rig.stream.leave()
    await _turns()
    store.commits.set()
    await _turns()
    assert taking.done()
    assert rig.queue.empty()
    assert isinstance(await store.claim(Request(call_of().caller.name, "0", b"other"), "m"), Accepted)
