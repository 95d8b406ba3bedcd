"""Which mails come in: places by caller and priority, octets, and what a stream does without either."""

import asyncio
from dataclasses import replace

import pytest

from drafts import read_draft
from otpmail.callers import Call, Caller, Permissions, Shares
from otpmail.delivery.job import Job
from otpmail.errors import MemoryFull, QueueFull, ShareSpent
from otpmail.limits.memory import HELD, READ_FACTOR, Held
from otpmail.mail.stream import MailStream
from otpmail.mail.submission import Submission
from otpmail.model import MailState, Priority, WaitFor
from rig import MailRig, call_of

pytestmark = pytest.mark.usefixtures("empty_directory")


def _submission(
    priority: Priority = Priority.NORMAL, wait_for: WaitFor = WaitFor.QUEUE, *, octets: int = 10, request_id: str = ""
) -> Submission:
    draft = read_draft(to=("ada@example.org",), subject="s", text="t" * octets)
    return Submission(draft=draft, priority=priority, wait_for=wait_for, request_id=request_id)


async def _decoded(submission: Submission) -> Submission:
    return submission


async def _fill(rig: MailRig, call: Call, submission: Submission) -> int:
    """Accept mails until one is refused; returns how many were accepted."""
    count = 0
    while True:
        try:
            await rig.mails.accept(call, submission)
        except (QueueFull, MemoryFull, ShareSpent):
            return count
        count += 1


async def _turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def _stream(rig: MailRig, name: str) -> MailStream:
    return MailStream(rig.mails, replace(call_of(), source=name), most=1000)


@pytest.mark.parametrize("priority", [Priority.NORMAL, Priority.BULK])
async def test_a_code_finds_a_place_in_a_full_queue(priority: Priority) -> None:
    """Nine tenths are all that normal and bulk mails take, and an urgent mail is accepted beside them."""
    rig = MailRig(queue_size=100)
    assert await _fill(rig, call_of(), _submission(priority)) == 90
    await rig.mails.accept(call_of("bank"), _submission(Priority.URGENT, WaitFor.RELAY))
    assert rig.queue.waiting()["urgent"] == 1


async def test_a_refused_caller_gets_the_next_places() -> None:
    """A caller that fills the queue alone is refused once another one was, until that has its share."""
    rig = MailRig(queue_size=100)
    await _fill(rig, call_of("shop"), _submission())
    assert await _fill(rig, call_of("bank"), _submission()) == 0
    for _ in range(50):
        rig.settle()
    assert await _fill(rig, call_of("shop"), _submission()) == 5
    assert await _fill(rig, call_of("bank"), _submission()) == 45


async def test_urgent_mails_that_are_deferred_leave_their_places() -> None:
    """Urgent mails that a relay defers fill no more than bulk ones do, and a code is accepted at any time."""
    rig = MailRig(queue_size=100)
    deferred = 0
    for _ in range(1000):
        try:
            await rig.mails.accept(call_of(f"caller-{deferred}"), _submission(Priority.URGENT))
        except QueueFull:
            break
        rig.settle(code=451)
        deferred += 1
    assert deferred == 95
    await rig.mails.accept(call_of("bank"), _submission(Priority.URGENT, WaitFor.RELAY))


async def test_a_waiting_caller_without_a_place_for_a_retry_gets_the_reply() -> None:
    """Where deferred mails take all their places, an urgent mail that is deferred ends with the relay's reply."""
    rig = MailRig(queue_size=100)
    await _fill(rig, call_of("shop"), _submission())
    sending = asyncio.create_task(rig.mails.send(call_of("bank"), _submission(Priority.URGENT, WaitFor.RELAY)))
    await _turns()
    rig.settle(code=451)
    mail = await sending
    assert mail.state is MailState.FAILED
    assert mail.recipients[0].code == 451


async def test_a_mail_without_memory_is_refused() -> None:
    """Mails are refused once their octets take the budget, however few they are, and a code is accepted beside them."""
    rig = MailRig(memory=1 << 20)
    accepted = await _fill(rig, call_of(), _submission(octets=50_000))
    assert 15 <= accepted <= 20
    assert rig.memory_budget.unsettled >= 7 << 17
    with rig.admission.reserve(call_of("bank"), WaitFor.RELAY, Priority.URGENT, code=True):
        pass
    rig.settle()
    rig.settle()
    await rig.mails.accept(call_of(), _submission())


async def test_a_large_mail_counts_once_while_its_call_waits() -> None:
    """The memory of a large request counts no more once its mail is accepted, nor does that of a repeated one."""
    rig = MailRig(memory=64 << 20)
    octets = 1 << 20
    submission = _submission(wait_for=WaitFor.RELAY, request_id="r", octets=octets)

    async def call() -> None:
        HELD.set(Held(rig.memory_budget, octets))
        await rig.mails.send(call_of(), submission)

    calls = [asyncio.create_task(call()) for _ in range(2)]
    await asyncio.sleep(0)
    assert rig.memory_budget.reading == 2 * READ_FACTOR * octets
    while rig.memory_budget.reading:  # noqa: ASYNC110  a plain number wakes nobody
        await asyncio.sleep(0)
    assert rig.queue.waiting()["normal"] == 1
    assert octets <= rig.memory_budget.unsettled < 1.2 * octets
    rig.settle()
    await asyncio.gather(*calls)


async def test_remembered_mails_give_way() -> None:
    """Settled mails are forgotten before a mail is refused."""
    rig = MailRig(memory=1 << 20)
    first = await rig.mails.accept(call_of(), _submission())
    rig.settle()
    assert rig.memory.mails.octets > 0
    await _fill(rig, call_of(), _submission(octets=50_000))
    assert rig.memory.mails.octets == 0
    assert await rig.store.get(first.caller, first.id) is None


async def test_a_stream_waits_for_memory() -> None:
    """A stream whose mail has no memory waits until one settles, as it waits for a place."""
    rig = MailRig(memory=1 << 20)
    await _fill(rig, call_of(), _submission(octets=50_000))
    stream = _stream(rig, "stream")
    taking = asyncio.create_task(stream.take([_submission(request_id="r")], _decoded))
    await _turns()
    assert not taking.done()
    rig.settle()
    rig.settle()
    await asyncio.wait_for(taking, 20)
    assert rig.queue.lanes[Priority.NORMAL].keys() == {"anonymous", "stream"}


async def test_streams_share_the_places() -> None:
    """A second stream gets its half as the first one's mails settle, though the first one waits for longer."""
    rig = MailRig(queue_size=100)
    first, second = _stream(rig, "first"), _stream(rig, "second")
    submissions = [_submission(request_id=f"r{number}") for number in range(200)]
    taking = [asyncio.create_task(first.take(submissions, _decoded))]
    await _turns()
    assert rig.queue.waiting()["normal"] == 81
    others = [replace(submission, request_id=f"s{number}") for number, submission in enumerate(submissions)]
    taking.append(asyncio.create_task(second.take(others, _decoded)))
    await _turns()
    for _ in range(90):
        rig.settle()
        await _turns()
    lane = rig.queue.lanes[Priority.NORMAL]
    assert rig.queue.waiting()["normal"] == 81
    assert (len(lane["first"]), len(lane["second"])) == (45, 36)
    for task in taking:
        task.cancel()
    await asyncio.gather(*taking, return_exceptions=True)
    assert not rig.admission.places.waiting.sources


async def test_all_streams_go_on_for_which_a_large_mail_makes_room() -> None:
    """One large mail that settles lets every stream go on whose mail then fits, and the others wait on."""
    rig = MailRig(memory=1 << 20)
    large = await rig.mails.accept(call_of(), _submission(octets=400_000))
    await _fill(rig, call_of(), _submission(octets=40_000))
    streams = [_stream(rig, f"stream-{number}") for number in range(20)]
    mails = [_submission(request_id=f"r{number}", octets=40_000) for number in range(20)]
    taking = [asyncio.create_task(stream.take([mail], _decoded)) for stream, mail in zip(streams, mails, strict=True)]
    await _turns()
    assert not any(task.done() for task in taking)
    rig.settle(large)
    for _ in range(10):
        await _turns()
    gone = sum(task.done() for task in taking)
    assert 8 <= gone <= 11
    assert rig.memory_budget.unsettled <= rig.memory_budget.for_mails + 50_000
    for task in taking:
        task.cancel()
    await asyncio.gather(*taking, return_exceptions=True)


async def test_large_mails_that_are_written_count_for_their_callers_share() -> None:
    """A caller that sends many large mails at once gets no more than half of the places beside another's mail."""
    rig = MailRig(queue_size=100)
    await rig.mails.accept(call_of("bank"), _submission())
    large = _submission(octets=300_000)
    ends = await asyncio.gather(*(rig.mails.accept(call_of("shop"), large) for _ in range(89)), return_exceptions=True)
    assert {type(end) for end in ends} == {Job, QueueFull}
    assert 44 <= sum(isinstance(end, Job) for end in ends) <= 45
    assert repr(rig.admission.places).startswith("<Places 4")


def _with_shares(name: str, **shares: float) -> Call:
    return replace(call_of(), caller=Caller(name, Permissions(shares=Shares(**shares))), source="")


async def test_a_caller_with_a_share_of_the_queue() -> None:
    """A caller has no more places than its share, urgent ones included, however many are free; others have theirs."""
    rig = MailRig(queue_size=100)
    shop = _with_shares("shop", queue=0.2)
    for _ in range(5):
        await rig.mails.accept(shop, _submission(Priority.URGENT))
    assert await _fill(rig, shop, _submission()) == 15
    with pytest.raises(ShareSpent) as caught:
        await rig.mails.accept(shop, _submission())
    words = "shop has 20 unsettled mails, which is its queue_share in [callers.shop] of CALLERS_FILE"
    assert (str(caught.value), caught.value.setting) == (words, "queue_share")
    await rig.mails.accept(call_of("bank"), _submission())
    rig.settle()
    assert await _fill(rig, shop, _submission()) == 1
    assert await _fill(rig, _with_shares("tiny", queue=1e-6), _submission()) == 1


async def test_a_caller_with_a_share_of_the_memory() -> None:
    """A caller whose unsettled mails take its share of the memory is refused, until one settles."""
    rig = MailRig(memory=16 << 20)
    shop = _with_shares("shop", memory=0.5)
    assert await _fill(rig, shop, _submission(octets=1 << 20)) == 7
    with pytest.raises(ShareSpent, match="take 7 MiB, which is its memory_share in ") as caught:
        await rig.mails.accept(shop, _submission())
    assert caught.value.setting == "memory_share"
    await rig.mails.accept(call_of("bank"), _submission(octets=1 << 20))
    rig.settle()
    await rig.mails.accept(shop, _submission())
    while rig.lifecycle.jobs:
        rig.settle()
    assert rig.lifecycle.places.octets("shop") == 0


async def test_a_stream_waits_for_its_callers_share() -> None:
    """The stream of a caller that has its share waits, and goes on when one of the caller's mails settles."""
    rig = MailRig(queue_size=100)
    shop = _with_shares("shop", queue=0.1)
    stream = MailStream(rig.mails, shop, most=1000)
    taking = asyncio.create_task(stream.take([_submission(request_id=str(n)) for n in range(12)], _decoded))
    await _turns()
    assert len(rig.lifecycle.jobs) == 10
    for _ in range(2):
        rig.settle()
        await _turns()
    await taking
    assert len(rig.lifecycle.jobs) == 10
    stream.leave()
