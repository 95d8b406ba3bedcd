"""The use cases of mail, with the real delivery and store, and a relay that is the test's own hand."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from drafts import read_draft
from otpmail.compose.draft import LARGE, Draft
from otpmail.compose.message import compose
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.queue import MailQueue
from otpmail.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, QueueFull, Unavailable
from otpmail.events import ALL_EVENTS, Event, MailSettled
from otpmail.mail import service
from otpmail.mail.service import MailService, Submission
from otpmail.model import Envelope, Mail, MailState, Priority, RecipientResult, WaitFor
from otpmail.settings import MailSettings
from otpmail.store.memory import MemoryMailStore

NOW = 1_700_000_000.0
DRAFT = read_draft(subject="Hello", text="Hello Ada")
LARGE_DRAFT = read_draft(text="x" * (LARGE + 1))


class RelayState:
    """Whether the relay is there."""

    down = False
    retry_after = 7.0


class DeliveryHandler:
    """A MailService with everything around it in the test's hands."""

    event_types = ALL_EVENTS

    def __init__(self, **settings: Any) -> None:
        self.relay = RelayState()
        self.queue = MailQueue()
        self.events: list[Event] = []
        self.store = MemoryMailStore(lambda: 1.0, remember_seconds=3600, remember_count=100)
        self.delivery = Lifecycle(self.queue, self.store, self, random=lambda: 0.5, now=lambda: NOW)
        given = {"email_from": "Shop <shop@example.org>", "queue_size": 3, **settings}
        self.mails = MailService(MailSettings(**given), self.delivery, self.store, self.relay, now=lambda: NOW)

    def notify(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)

    async def accept(self, draft: Draft = DRAFT, **more: Any) -> Job:
        """Accept a mail that its caller was promised, unless `wait_for` says otherwise."""
        return await self.mails.accept(Submission(**{"draft": draft, "wait_for": WaitFor.QUEUE, **more}))

    def send(self, draft: Draft = DRAFT, **more: Any) -> "asyncio.Task[Mail]":
        """Begin a call that waits for the relay."""
        return asyncio.create_task(self.mails.send(Submission(draft=draft, **more)))

    def settle(self, job: Job, code: int = 250) -> None:
        """Be worker and relay for that job, which has left the queue."""
        assert self.delivery.begin(job)
        self.delivery.answered(job, tuple(RecipientResult(address, code, "", "said") for address in job.pending))

    async def cancelled(self, *calls: "asyncio.Task[Mail]") -> None:
        """Cancel calls, and wait until they have ended by that."""
        for call in calls:
            call.cancel()
        for call in calls:
            with pytest.raises(asyncio.CancelledError):
                await call


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
async def desk() -> DeliveryHandler:
    """The service with its defaults."""
    return DeliveryHandler()


class Pen:
    """Stands in for `compose`: says when a mail is being written, and goes on when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._loop = asyncio.get_running_loop()
        self.writing = asyncio.Event()
        self.go_on = threading.Event()
        self.thread: threading.Thread | None = None
        monkeypatch.setattr(service, "compose", self)

    def __call__(self, *arguments: Any, **more: Any) -> Envelope:
        """Write the mail, not before it is time."""
        self.thread = threading.current_thread()
        self._loop.call_soon_threadsafe(self.writing.set)
        assert self.go_on.wait(30)
        return compose(*arguments, **more)


# Accepting.


async def test_an_accepted_mail_is_on_its_way(desk: DeliveryHandler) -> None:
    """It has an id, a Message-ID of its sender's domain, and a place in the queue."""
    job = await desk.accept(priority=Priority.BULK)
    assert desk.queue.get_nowait() is job
    assert job.mail.state is MailState.QUEUED
    assert job.mail.message_id == f"<{job.mail.id}@example.org>"
    assert job.mail.create_time == NOW
    assert job.priority is Priority.BULK
    assert job.envelope.sender == "shop@example.org"
    assert f"Message-ID: {job.mail.message_id}".encode() in job.envelope.content
    assert b"Date: Tue, 14 Nov 2023 22:13:20 +0000" in job.envelope.content


@pytest.mark.parametrize(
    ("order", "seconds"),
    [
        ({"wait_for": WaitFor.RELAY}, 60),
        ({"wait_for": WaitFor.QUEUE}, 1000),
        ({"ttl": 5.0}, 5),
        ({"ttl": 5000.0}, 1000),
    ],
)
async def test_a_mails_time(order: dict[str, Any], seconds: float) -> None:
    """MAIL_WAIT_SECONDS where its caller waits, MAIL_TTL where it was promised, else its ttl; never over MAIL_TTL."""
    desk = DeliveryHandler(mail_ttl=1000, mail_wait_seconds=60)
    loop = asyncio.get_running_loop()
    before = loop.time()
    deadline = (await desk.accept(**order)).deadline
    assert before + seconds <= deadline <= loop.time() + seconds


@pytest.mark.parametrize(
    ("draft", "order", "field"),
    [
        (read_draft(text="x" * 2000), {}, "text"),
        (read_draft(html="é" * 1000), {}, "html"),
        (DRAFT, {"ttl": 0.0}, "ttl"),
        (DRAFT, {"ttl": -1.0}, "ttl"),
        (DRAFT, {"request_id": "x" * 129}, "request_id"),
        (DRAFT, {"request_id": "a\nb"}, "request_id"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_accepted(draft: Draft, order: dict[str, Any], field: str) -> None:
    """InvalidArgument with the field's name, and its request id is free for a better one."""
    desk = DeliveryHandler(mail_max_bytes=1500)
    with pytest.raises(InvalidArgument) as caught:
        await desk.accept(draft, **{"request_id": "r1", "fingerprint": b"f", **order})
    assert caught.value.field == field
    assert desk.events == []
    assert await desk.accept(request_id="r1", fingerprint=b"g")


async def test_a_large_mail_is_held_to_the_same_limit() -> None:
    """A mail that a thread writes is refused by the same error."""
    desk = DeliveryHandler(mail_max_bytes=LARGE)
    with pytest.raises(InvalidArgument) as caught:
        await desk.accept(LARGE_DRAFT)
    assert caught.value.field == "text"


async def test_the_loop_does_not_wait_for_a_large_mail(desk: DeliveryHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mail that takes long to write is written in a thread: others are accepted meanwhile."""
    pen = Pen(monkeypatch)
    accepting = asyncio.create_task(desk.accept(LARGE_DRAFT))
    await pen.writing.wait()
    assert pen.thread is not threading.current_thread()
    assert not accepting.done()
    pen.go_on.set()
    small = await desk.accept()
    assert {await accepting, small} == {desk.queue.get_nowait(), desk.queue.get_nowait()}


@pytest.mark.parametrize("wait_for", WaitFor)
async def test_a_mail_still_being_written_when_the_rest_is_abandoned(
    desk: DeliveryHandler, monkeypatch: pytest.MonkeyPatch, wait_for: WaitFor
) -> None:
    """It is not accepted and then lost: its caller hears Unavailable, and no mail is remembered under its id."""
    pen = Pen(monkeypatch)
    call = desk.send(LARGE_DRAFT, wait_for=wait_for, request_id="r1", fingerprint=b"f")
    await pen.writing.wait()
    desk.delivery.abandon()
    pen.go_on.set()
    with pytest.raises(Unavailable):
        await call
    assert desk.queue.empty()
    assert desk.events == []
    assert await desk.mails.earlier("anonymous", "r1", b"f") is None


async def test_a_call_that_is_cancelled_while_its_mail_is_written(
    desk: DeliveryHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is accepted for it, then or when the thread has ended, and its request id is free."""
    pen = Pen(monkeypatch)
    call = desk.send(LARGE_DRAFT, request_id="r1", fingerprint=b"f")
    await pen.writing.wait()
    await desk.cancelled(call)
    pen.go_on.set()
    assert pen.thread is not None
    await asyncio.get_running_loop().shutdown_default_executor()
    assert desk.events == []
    assert await desk.mails.earlier("anonymous", "r1", b"f") is None


async def test_room_is_looked_for_again_when_a_mail_was_written(
    desk: DeliveryHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QUEUE_SIZE holds though others were accepted while this one was being written."""
    jobs = [await desk.accept() for _ in range(2)]
    pen = Pen(monkeypatch)
    accepting = asyncio.create_task(desk.accept(LARGE_DRAFT, request_id="r1", fingerprint=b"f"))
    await pen.writing.wait()
    pen.go_on.set()
    jobs.append(await desk.accept())
    with pytest.raises(QueueFull):
        await accepting
    assert len(desk.delivery) == 3
    desk.delivery.cancel(jobs[0])
    assert await desk.accept(request_id="r1", fingerprint=b"g")


async def test_a_full_queue(desk: DeliveryHandler) -> None:
    """QueueFull once QUEUE_SIZE mails have not settled, whatever they wait for; one that settles makes room."""
    jobs = [await desk.accept() for _ in range(3)]
    desk.settle(desk.queue.get_nowait(), 451)  # it waits for its next try
    with pytest.raises(QueueFull):
        await desk.accept()
    desk.delivery.cancel(jobs[0])
    await desk.accept()


async def test_a_relay_that_is_away(desk: DeliveryHandler) -> None:
    """Who would wait for it hears Unavailable with the wait; who takes a promise gets one."""
    desk.relay.down = True
    with pytest.raises(Unavailable) as caught:
        await desk.send()
    assert caught.value.retry_after == 7.0
    assert (await desk.send(wait_for=WaitFor.QUEUE)).state is MailState.QUEUED


@pytest.mark.parametrize(
    ("sender", "permitted"),
    [
        ("SHOP@Example.org", True),
        ("Boss <boss@example.net>", True),
        ("anybody@shop.example", True),
        ("anybody@sub.shop.example", False),
        ("anybody@notshop.example", False),
        ("eve@example.org", False),
    ],
)
async def test_whom_a_mail_may_be_from(sender: str, permitted: bool) -> None:  # noqa: FBT001
    """EMAIL_FROM, and whom EMAIL_FROM_ALLOWED names, by mailbox or by domain; else PermissionDenied."""
    desk = DeliveryHandler(email_from_allowed="boss@example.net, @shop.example")
    draft = read_draft(sender=sender)
    if permitted:
        job = await desk.accept(draft)
        assert job.envelope.sender in sender
        assert job.mail.message_id.endswith(f"@{job.envelope.sender.partition('@')[2]}>")
    else:
        with pytest.raises(PermissionDenied, match="EMAIL_FROM_ALLOWED"):
            await desk.accept(draft)


# Waiting for the end.


@pytest.mark.parametrize(("code", "state"), [(250, MailState.RELAYED), (550, MailState.FAILED)])
async def test_a_caller_learns_how_the_mail_ended(desk: DeliveryHandler, code: int, state: MailState) -> None:
    """Relayed or refused: either is an answer."""
    call = desk.send()
    desk.settle(await desk.queue.get(), code)
    mail = await call
    assert (mail.state, mail.recipients[0].code) == (state, code)


async def test_a_promise_is_answered_at_once(desk: DeliveryHandler) -> None:
    """With WaitFor.QUEUE the answer does not wait for the relay, nor does the mail go when the caller does."""
    mail = await desk.send(wait_for=WaitFor.QUEUE)
    assert mail.state is MailState.QUEUED
    assert desk.queue.get_nowait().mail is mail


async def test_the_last_caller_that_goes_takes_the_mail_along(desk: DeliveryHandler) -> None:
    """While one of those who asked with the same request id still waits, the mail stays."""
    calls = [desk.send(request_id="r1", fingerprint=b"f") for _ in range(3)]
    job = await desk.queue.get()
    desk.queue.put_back(job)
    await desk.cancelled(*calls[:2])
    assert not job.settled
    await desk.cancelled(calls[2])
    assert job.mail.state is MailState.CANCELLED
    assert desk.queue.empty()


async def test_a_caller_that_goes_does_not_disturb_the_relay(desk: DeliveryHandler) -> None:
    """A mail that is being handed over is left to what the relay says."""
    call = desk.send()
    job = await desk.queue.get()
    assert desk.delivery.begin(job)
    await desk.cancelled(call)
    assert job.mail.state is MailState.SENDING
    desk.delivery.answered(job, (RecipientResult("ada@example.org", 250),))
    assert (await desk.mails.get("anonymous", job.mail.id)).state is MailState.RELAYED


async def test_who_waits_when_the_service_stops_hears_so(desk: DeliveryHandler) -> None:
    """Unavailable, for each of them."""
    calls = [desk.send(request_id="r1", fingerprint=b"f") for _ in range(2)]
    await desk.queue.get()
    await asyncio.sleep(0)
    desk.delivery.abandon()
    for call in calls:
        with pytest.raises(Unavailable):
            await call


# Request ids.


async def test_a_repeated_request_is_the_same_mail(desk: DeliveryHandler) -> None:
    """While it is on its way and after it has settled; the full queue and the lost relay are nothing to it."""
    job = await desk.accept(request_id="r1", fingerprint=b"f")
    for _ in range(2):
        await desk.accept()
    desk.relay.down = True
    assert await desk.accept(request_id="r1", fingerprint=b"f", wait_for=WaitFor.RELAY) is job
    desk.settle(desk.queue.get_nowait())
    again = await desk.accept(request_id="r1", fingerprint=b"f")
    assert again.mail == job.mail
    assert job.mail.state is MailState.RELAYED


async def test_a_request_id_is_for_one_content_and_one_caller(desk: DeliveryHandler) -> None:
    """With another content it is InvalidArgument that names it; another caller's is another mail."""
    job = await desk.accept(request_id="r1", fingerprint=b"f")
    with pytest.raises(InvalidArgument) as caught:
        await desk.accept(request_id="r1", fingerprint=b"g")
    assert caught.value.field == "request_id"
    assert await desk.accept(request_id="r1", fingerprint=b"g", caller="bank") is not job


async def test_two_requests_that_are_written_at_once_are_one_mail(
    desk: DeliveryHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither finds the other when it comes; the first that is written is accepted, the other gets its job."""
    pen = Pen(monkeypatch)
    calls = [asyncio.create_task(desk.accept(LARGE_DRAFT, request_id="r1", fingerprint=b"f")) for _ in range(2)]
    await pen.writing.wait()
    pen.go_on.set()
    first, second = await asyncio.gather(*calls)
    assert first is second
    assert desk.queue.get_nowait() is first
    assert desk.queue.empty()


async def test_one_that_comes_when_the_other_has_settled_gets_its_end(
    desk: DeliveryHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mail whose twin was relayed while it was being written is not sent again."""
    pen = Pen(monkeypatch)
    late = asyncio.create_task(desk.accept(LARGE_DRAFT, request_id="r1", fingerprint=b"f"))
    await pen.writing.wait()
    pen.go_on.set()
    job = await desk.accept(request_id="r1", fingerprint=b"f")
    desk.settle(desk.queue.get_nowait())
    assert (await late).mail == job.mail
    assert desk.queue.empty()


# Afterwards, and in between.


async def test_looking_up(desk: DeliveryHandler) -> None:
    """A mail is there for its caller alone, on its way and settled; what is not there is NotFound."""
    job = await desk.accept(caller="shop")
    assert await desk.mails.get("shop", job.mail.id) == job.mail
    for settled in (False, True):
        if settled:
            desk.settle(desk.queue.get_nowait())
        assert await desk.mails.get("shop", job.mail.id) == job.mail
        for caller, mail_id in (("bank", job.mail.id), ("shop", "nope"), ("shop", ""), ("shop", "x" * 64)):
            with pytest.raises(NotFound):
                await desk.mails.get(caller, mail_id)


async def _watch(desk: DeliveryHandler, mail_id: str) -> list[Mail]:
    return [mail async for mail in desk.mails.watch("anonymous", mail_id)]


@pytest.mark.parametrize(
    "use",
    [
        lambda desk, mail_id: desk.mails.get("anonymous", mail_id),
        lambda desk, mail_id: desk.mails.cancel("anonymous", mail_id),
        _watch,
    ],
    ids=["get", "cancel", "watch"],
)
@pytest.mark.parametrize(("mail_id", "error"), [("x" * 64, NotFound), ("x" * 65, InvalidArgument)])
async def test_an_id_that_can_not_be_one(
    desk: DeliveryHandler, use: Callable[[DeliveryHandler, str], Any], mail_id: str, error: type[Exception]
) -> None:
    """Over 64 characters it is InvalidArgument that names the field, whatever is asked of it; else NotFound."""
    with pytest.raises(error) as caught:
        await use(desk, mail_id)
    if isinstance(caught.value, InvalidArgument):
        assert caught.value.field == "id"


async def test_watching(desk: DeliveryHandler) -> None:
    """Every watcher sees the present state and each that follows; one that goes early is not kept."""
    job = await desk.accept()
    watching = asyncio.create_task(_watch(desk, job.mail.id))
    leaving = desk.mails.watch("anonymous", job.mail.id)
    assert (await anext(leaving)).state is MailState.QUEUED
    await asyncio.sleep(0)
    assert len(job.watchers) == 2
    await leaving.aclose()
    assert len(job.watchers) == 1
    desk.settle(desk.queue.get_nowait())
    assert [mail.state.name for mail in await watching] == ["QUEUED", "SENDING", "RELAYED"]
    assert job.watchers == ()
    assert await _watch(desk, job.mail.id) == [job.mail]


async def test_another_callers_mail_can_not_be_watched_or_cancelled(desk: DeliveryHandler) -> None:
    """NotFound, as for one that never was; and nothing happens to it."""
    job = await desk.accept(caller="shop")
    with pytest.raises(NotFound):
        await _watch(desk, job.mail.id)
    with pytest.raises(NotFound):
        await desk.mails.cancel("bank", job.mail.id)
    assert job.mail.state is MailState.QUEUED


async def test_cancelling(desk: DeliveryHandler) -> None:
    """A waiting mail is taken back, once; who waited for it learns that."""
    call = desk.send()
    job = await desk.queue.get()
    desk.queue.put_back(job)
    for _ in range(2):
        assert (await desk.mails.cancel("anonymous", job.mail.id)).state is MailState.CANCELLED
    assert (await call).state is MailState.CANCELLED
    assert sum(isinstance(event, MailSettled) for event in desk.events) == 1
    assert desk.queue.empty()


async def test_what_can_not_be_cancelled(desk: DeliveryHandler) -> None:
    """A mail that is with the relay, or has settled otherwise: FailedPrecondition."""
    job = await desk.accept()
    assert desk.delivery.begin(desk.queue.get_nowait())
    with pytest.raises(FailedPrecondition):
        await desk.mails.cancel("anonymous", job.mail.id)
    desk.delivery.answered(job, (RecipientResult("ada@example.org", 250),))
    with pytest.raises(FailedPrecondition, match="RELAYED"):
        await desk.mails.cancel("anonymous", job.mail.id)


async def test_a_mail_taken_back_by_its_caller_keeps_its_request_id(desk: DeliveryHandler) -> None:
    """Cancelled by word is decided: the same request again is not a new mail."""
    job = await desk.accept(request_id="r1", fingerprint=b"f")
    await desk.mails.cancel("anonymous", job.mail.id)
    again = await desk.accept(request_id="r1", fingerprint=b"f")
    assert again.state is MailState.CANCELLED


async def test_a_mail_given_up_with_its_call_frees_its_request_id(desk: DeliveryHandler) -> None:
    """Nothing was decided of it but that its caller's time ran out: the next try sends."""
    call = desk.send(request_id="r1", fingerprint=b"f")
    await desk.queue.get()
    await desk.cancelled(call)
    job = await desk.accept(request_id="r1", fingerprint=b"f")
    assert desk.queue.get_nowait() is job


async def test_the_repr_counts(desk: DeliveryHandler) -> None:
    """Open mails and lanes, nothing of what they say."""
    await desk.accept()
    assert repr(desk.mails) == "<MailService <Delivery 1 open, <MailQueue 0 urgent, 1 normal, 0 bulk>>>"
