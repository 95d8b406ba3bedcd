"""The use cases of mail, with the real lifecycle and store, and a relay that is the test's own hand."""

import asyncio
import weakref
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic, time
from types import SimpleNamespace
from typing import Any

import pytest

from drafts import read_draft
from mail.rigs import DRAFT, LARGE_DRAFT, Pen, Rig
from otpmail.api.calls import call_from
from otpmail.callers import ANONYMOUS, Call, Caller, Permissions
from otpmail.compose.draft import LARGE, Draft
from otpmail.errors import (
    DeadlineExceeded,
    InvalidArgument,
    PermissionDenied,
    QueueFull,
    Unavailable,
)
from otpmail.events import MailSettled
from otpmail.mail.submission import Submission
from otpmail.model import Mail, MailState, Priority, RecipientResult, WaitFor
from otpmail.store.base import Accepted, Conflict, Earlier, Entry, Request, Running
from otpmail.store.memory.mails import MemoryMailStore
from otpmail.store.retention import Retention
from rig import NOW, call_of

pytestmark = pytest.mark.usefixtures("empty_directory")


@pytest.fixture
async def rig() -> Rig:
    """The service with its defaults."""
    return Rig()


# Accepting.


async def test_an_accepted_mail_is_on_its_way(rig: Rig) -> None:
    """An accepted mail has an id, a Message-ID of its sender's domain, and a place in the queue."""
    job = await rig.accept(priority=Priority.BULK)
    assert rig.queue.get_nowait() is job
    assert job.mail.state is MailState.QUEUED
    assert job.mail.message_id == f"<{job.mail.id}@example.org>"
    assert job.mail.create_time == NOW
    assert job.priority is Priority.BULK
    assert job.envelope.sender == "shop@example.org"
    assert f"Message-ID: {job.mail.message_id}".encode() in job.envelope.content
    assert b"Date: Tue, 14 Nov 2023 22:13:20 +0000" in job.envelope.content


@pytest.mark.parametrize(
    ("terms", "seconds"),
    [
        ({"wait_for": WaitFor.RELAY}, 1000),
        ({"wait_for": WaitFor.QUEUE}, 1000),
        ({"ttl": 5.0}, 5),
        ({"ttl": 5000.0}, 1000),
    ],
)
async def test_a_mails_time(terms: dict[str, Any], seconds: float) -> None:
    """A mail without a ttl has MAIL_TTL, also if its caller waits; MAIL_TTL bounds any ttl as well."""
    rig = Rig(mail_ttl=1000, mail_wait_seconds=60)
    assert (await rig.accept(**terms)).deadline == NOW + seconds


@pytest.mark.parametrize(
    ("draft", "terms", "field"),
    [
        (read_draft(text="x" * 2000), {}, "text"),
        (read_draft(html="é" * 1000), {}, "html"),
        (DRAFT, {"ttl": 0.0}, "ttl"),
        (DRAFT, {"ttl": -1.0}, "ttl"),
        (DRAFT, {"request_id": "x" * 129}, "request_id"),
        (DRAFT, {"request_id": "a\nb"}, "request_id"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_accepted(draft: Draft, terms: dict[str, Any], field: str) -> None:
    """A faulty mail is InvalidArgument that names the field, and its request id stays free for a better one."""
    rig = Rig(mail_max_bytes=1500)
    with pytest.raises(InvalidArgument) as caught:
        await rig.accept(draft, **{"request_id": "r1", "fingerprint": b"f", **terms})
    assert caught.value.field == field
    assert rig.events == []
    assert await rig.accept(request_id="r1", fingerprint=b"g")


async def test_a_large_mail_is_held_to_the_same_limit() -> None:
    """A mail that is written in steps is refused by the same error."""
    rig = Rig(mail_max_bytes=LARGE)
    with pytest.raises(InvalidArgument) as caught:
        await rig.accept(LARGE_DRAFT)
    assert caught.value.field == "text"


async def test_the_loop_does_not_wait_for_a_large_mail(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a large mail is being written, others are accepted."""
    pen = Pen(monkeypatch)
    accepting = asyncio.create_task(rig.accept(LARGE_DRAFT))
    await pen.writing.wait()
    small = await rig.accept()
    assert rig.queue.get_nowait() is small
    assert not accepting.done()
    pen.go_on.set()
    large = await accepting
    assert rig.queue.get_nowait() is large


class WeakText(str):
    """A text of which a test can see whether anybody still has it."""

    __slots__ = ("__weakref__",)


async def test_a_call_that_waits_for_the_relay_keeps_no_draft(rig: Rig) -> None:
    """While a mail waits for the relay, its content exists once: as the octets for the relay."""
    text = WeakText("x" * (LARGE + 1))
    alive = weakref.ref(text)
    call = asyncio.create_task(rig.mails.send(call_of(), Submission(draft=read_draft(text=text))))
    del text
    job = await rig.queue.get()
    assert alive() is None
    rig.settle(job)
    assert (await call).state is MailState.RELAYED


async def test_two_large_mails_are_written_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third large mail waits until one of two has been written."""
    rig = Rig(queue_size=5)
    pen = Pen(monkeypatch)
    calls = [asyncio.create_task(rig.accept(LARGE_DRAFT)) for _ in range(4)]
    await pen.writing.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    assert (pen.times, pen.open) == (2, 2)
    assert repr(rig.mails.cooperator) == "<Cooperator 2 of 2 running, 2 waiting>"
    pen.go_on.set()
    jobs = await asyncio.gather(*calls)
    assert {rig.queue.get_nowait() for _ in jobs} == set(jobs)
    assert pen.open == 0


@pytest.mark.parametrize("wait_for", WaitFor)
async def test_a_mail_still_being_written_when_the_rest_is_abandoned(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, wait_for: WaitFor
) -> None:
    """A mail whose composing ends after the stop is not accepted: its caller gets Unavailable, its id is unknown."""
    pen = Pen(monkeypatch)
    call = rig.send(LARGE_DRAFT, wait_for=wait_for, request_id="r1", fingerprint=b"f")
    await pen.writing.wait()
    rig.lifecycle.close()
    pen.go_on.set()
    with pytest.raises(Unavailable):
        await call
    assert rig.queue.empty()
    assert rig.events == []
    assert await rig.store.claim(Request("anonymous", "r1", b"f"), "m") == Accepted()


async def test_a_call_that_is_cancelled_while_its_mail_is_written(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call cancelled while its mail is being written has nothing accepted, and its request id is free."""
    pen = Pen(monkeypatch)
    call = rig.send(LARGE_DRAFT, request_id="r1", fingerprint=b"f")
    await pen.writing.wait()
    await rig.cancelled(call)
    assert pen.open == 0
    assert rig.events == []
    assert await rig.store.claim(Request("anonymous", "r1", b"f"), "m") == Accepted()


async def test_a_mail_that_is_being_composed_holds_its_place(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """QUEUE_SIZE counts it from its reservation on, so it is not refused once the work is done."""
    for _ in range(2):
        await rig.accept()
    pen = Pen(monkeypatch)
    accepting = asyncio.create_task(rig.accept(LARGE_DRAFT))
    await pen.writing.wait()
    with pytest.raises(QueueFull):
        await rig.accept()
    pen.go_on.set()
    assert (await accepting).state is MailState.QUEUED
    assert repr(rig.admission) == "<Admission 3 open and 0 reserved of 3, 0 streams>"


async def test_a_refused_mail_gives_its_place_back(rig: Rig) -> None:
    """A reservation ends with the mail that it was for, whatever becomes of that."""
    for _ in range(4):
        with pytest.raises(InvalidArgument):
            await rig.accept(ttl=0.0)
    assert repr(rig.admission) == "<Admission 0 open and 0 reserved of 3, 0 streams>"


async def test_a_full_queue(rig: Rig) -> None:
    """The service raises QueueFull once QUEUE_SIZE mails have not settled, until one of them settles."""
    jobs = [await rig.accept() for _ in range(3)]
    rig.settle(rig.queue.get_nowait(), 451)  # it waits for its next try
    with pytest.raises(QueueFull):
        await rig.accept()
    rig.lifecycle.cancel(jobs[0])
    await rig.accept()


async def test_a_relay_that_is_down(rig: Rig) -> None:
    """A caller that would wait for the relay gets Unavailable with the time to wait; a guaranteed mail is accepted."""
    rig.relay.down = True
    with pytest.raises(Unavailable) as caught:
        await rig.send()
    assert caught.value.retry_after == 7.0
    rig.relay.outage = "the relay can't be reached"
    with pytest.raises(Unavailable, match=r"^the relay can't be reached$"):
        await rig.send()
    assert (await rig.send(wait_for=WaitFor.QUEUE)).state is MailState.QUEUED


async def test_a_mail_of_another_author(rig: Rig) -> None:
    """The envelope and the Message-ID of a mail are of its author, unless its draft names a return path and an id."""
    rig = Rig(email_from_allowed="@shop.example")
    job = await rig.accept(read_draft(from_="News <news@shop.example>"))
    assert job.envelope.sender == "news@shop.example"
    assert job.mail.message_id == f"<{job.id}@shop.example>"
    job = await rig.accept(read_draft(return_path="", message_id="1@x.org"))
    assert (job.envelope.sender, job.mail.message_id) == ("", "<1@x.org>")
    assert b"\r\nMessage-ID: <1@x.org>\r\n" in job.envelope.content


async def test_a_mail_of_nobody_who_may_send(rig: Rig) -> None:
    """A mail with an author, sender or return path that is not allowed is not accepted."""
    eve = "eve@example.org"
    for draft in (read_draft(from_=eve), read_draft(sender=eve), read_draft(return_path=eve)):
        with pytest.raises(PermissionDenied):
            await rig.accept(draft)
    assert rig.queue.empty()


# Waiting for the end.


@pytest.mark.parametrize(("code", "state"), [(250, MailState.RELAYED), (550, MailState.FAILED)])
async def test_a_caller_learns_how_the_mail_ended(rig: Rig, code: int, state: MailState) -> None:
    """A waiting caller gets the settled mail, whether it was relayed or refused."""
    call = rig.send()
    rig.settle(await rig.queue.get(), code)
    mail = await call
    assert (mail.state, mail.recipients[0].code) == (state, code)


async def test_a_guaranteed_mail_is_answered_at_once(rig: Rig) -> None:
    """With WaitFor.QUEUE the answer does not wait for the relay, and the mail is sent though its caller has gone."""
    mail = await rig.send(wait_for=WaitFor.QUEUE)
    assert mail.state is MailState.QUEUED
    assert rig.queue.get_nowait().mail == mail


async def test_the_last_caller_that_goes_takes_the_mail_along(rig: Rig) -> None:
    """While one of those who asked with the same request id still waits, the mail stays."""
    calls = [rig.send(request_id="r1", fingerprint=b"f") for _ in range(3)]
    job = await rig.queue.get()
    rig.queue.put_back(job)
    await rig.cancelled(*calls[:2])
    assert not job.settled
    await rig.cancelled(calls[2])
    assert job.mail.state is MailState.CANCELLED
    assert rig.queue.empty()


async def test_a_caller_that_goes_does_not_disturb_the_relay(rig: Rig) -> None:
    """A mail that is being handed over is left to what the relay says."""
    call = rig.send()
    job = await rig.queue.get()
    assert rig.lifecycle.start(job)
    await rig.cancelled(call)
    assert job.mail.state is MailState.SENDING
    rig.lifecycle.replied(job, (RecipientResult("ada@example.org", 250),))
    assert (await rig.mails.get(ANONYMOUS, job.mail.id)).state is MailState.RELAYED


@pytest.mark.parametrize("terms", [{}, {"ttl": 600.0}], ids=["without a ttl", "with a ttl"])
async def test_a_mail_goes_on_after_its_caller_has_waited(terms: dict[str, Any]) -> None:
    """After MAIL_WAIT_SECONDS the caller gets the present state; the mail is retried until its time is over."""
    rig = Rig(mail_wait_seconds=0.01)
    mail = await rig.send(**terms)
    assert mail.state is MailState.QUEUED
    job = rig.settle(code=451)
    assert job.state is MailState.QUEUED
    assert rig.settle(job).mail.state is MailState.RELAYED
    assert repr(rig.waiters) == "<Waiters 0 jobs awaited, 0 watched>"


async def test_a_mail_that_is_with_the_relay_goes_on_after_its_caller_has_waited() -> None:
    """The relay's reply decides about a mail that it has at the end of the wait; a deferral then is the end."""
    rig = Rig(mail_wait_seconds=0.01)
    for code, state in ((250, MailState.RELAYED), (451, MailState.FAILED)):
        call = rig.send()
        job = await rig.queue.get()
        assert rig.lifecycle.start(job)
        assert (await call).state is MailState.SENDING
        rig.now = job.deadline
        assert rig.settle(job, code).mail.state is state


async def test_a_stop_counts_a_mail_that_goes_on_among_the_lost() -> None:
    """A mail whose caller was answered QUEUED is lost by a stop, as one that was guaranteed; a code's mail too."""
    rig = Rig(mail_wait_seconds=0.01)
    assert (await rig.send()).state is MailState.QUEUED
    assert rig.lifecycle.promises.unkept(rig.lifecycle.jobs.values()) == 1
    assert rig.lifecycle.close().lost == 1


async def test_a_repeated_request_waits_again_for_a_mail_that_goes_on() -> None:
    """A caller that was answered QUEUED repeats its request and gets the same mail's end."""
    rig = Rig(mail_wait_seconds=0.01)
    first = await rig.send(ttl=600.0, request_id="r1", fingerprint=b"f")
    again = rig.send(ttl=600.0, request_id="r1", fingerprint=b"f")
    await asyncio.sleep(0)
    rig.settle()
    assert (await again).id == first.id
    assert (await again).state is MailState.RELAYED


@pytest.mark.parametrize(("begun", "state"), [(False, "cancelled"), (True, "with the relay")])
async def test_a_deadline_before_the_end_of_the_wait(rig: Rig, begun: bool, state: str) -> None:  # noqa: FBT001
    """A deadline that comes first is an error with the mail's id, and abandons the mail as a cancelled call does."""
    call = Call(ANONYMOUS, "unix:", monotonic() + 0.02)
    sending = asyncio.create_task(rig.mails.send(call, Submission(draft=DRAFT)))
    job = await rig.queue.get()
    if begun:
        assert rig.lifecycle.start(job)
    with pytest.raises(DeadlineExceeded, match=f"mail {job.id} .* it is {state}.*the relay has not replied") as caught:
        await sending
    assert caught.value.mail_id == job.id
    assert rig.waiters.is_abandoned(job)
    assert job.state is (MailState.SENDING if begun else MailState.CANCELLED)


@pytest.mark.parametrize("ahead", [3600, -3600])
async def test_the_clock_of_the_store_moves_no_deadline(rig: Rig, ahead: int) -> None:
    """A caller waits until its own deadline, where the store's clock is another than the machine's."""
    rig.now = time() + ahead  # as that of a server of Redis, or where the machine's clock was set since the start
    context: Any = SimpleNamespace(time_remaining=lambda: 30.0, peer=lambda: "unix:")
    sending = asyncio.create_task(rig.mails.send(call_from(context), Submission(draft=DRAFT)))
    job = await rig.queue.get()
    await asyncio.sleep(0.05)
    assert not sending.done()
    rig.settle(job)
    assert (await sending).state is MailState.RELAYED


async def test_a_deadline_does_not_cancel_a_mail_that_others_wait_for(rig: Rig) -> None:
    """A mail for which another caller still waits stays queued at the first caller's deadline."""
    terms: dict[str, Any] = {"draft": DRAFT, "request_id": "r1", "fingerprint": b"f"}
    call = Call(ANONYMOUS, "unix:", monotonic() + 0.02)
    first, other = asyncio.create_task(rig.mails.send(call, Submission(**terms))), rig.send(**terms)
    with pytest.raises(DeadlineExceeded, match="it is still queued"):
        await first
    rig.settle()
    assert (await other).state is MailState.RELAYED


async def test_a_stop_answers_callers_that_wait(rig: Rig) -> None:
    """A stop raises Unavailable in each caller that waits for its mail."""
    calls = [rig.send(request_id="r1", fingerprint=b"f") for _ in range(2)]
    await rig.queue.get()
    await asyncio.sleep(0)
    rig.lifecycle.close()
    for call in calls:
        with pytest.raises(Unavailable):
            await call


# Request ids.


async def test_a_repeated_request_is_the_same_mail(rig: Rig) -> None:
    """A repeated request finds its mail, open or settled, even if the queue is full or the relay is down."""
    job = await rig.accept(request_id="r1", fingerprint=b"f")
    for _ in range(2):
        await rig.accept()
    rig.relay.down = True
    assert await rig.accept(request_id="r1", fingerprint=b"f", wait_for=WaitFor.RELAY) is job
    rig.settle(rig.queue.get_nowait())
    again = await rig.accept(request_id="r1", fingerprint=b"f")
    assert again.mail == job.mail
    assert job.mail.state is MailState.RELAYED


async def test_a_request_id_is_for_one_content_and_one_caller(rig: Rig) -> None:
    """A request id with another content is InvalidArgument that names it; another caller's is another mail."""
    job = await rig.accept(request_id="r1", fingerprint=b"f")
    with pytest.raises(InvalidArgument) as caught:
        await rig.accept(request_id="r1", fingerprint=b"g")
    assert caught.value.field == "request_id"
    assert await rig.accept(request_id="r1", fingerprint=b"g", caller="bank") is not job


async def test_a_repeated_request_waits_for_the_first_that_is_still_being_accepted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mail is composed once, and both calls get its job."""
    pen = Pen(monkeypatch)
    calls = [asyncio.create_task(rig.accept(LARGE_DRAFT, request_id="r1", fingerprint=b"f")) for _ in range(3)]
    await pen.writing.wait()
    with pytest.raises(InvalidArgument, match="request_id"):
        await rig.accept(request_id="r1", fingerprint=b"g")
    pen.go_on.set()
    first, second, third = await asyncio.gather(*calls)
    assert first is second is third
    assert pen.times == 1
    assert rig.queue.get_nowait() is first
    assert rig.queue.empty()


async def test_a_repeated_request_counts_as_the_first_where_that_is_refused(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the first call is cancelled while it is being accepted, the next one that waits for it is accepted."""
    pen = Pen(monkeypatch)
    calls = [rig.send(LARGE_DRAFT, request_id="r1", fingerprint=b"f") for _ in range(3)]
    await pen.writing.wait()
    await rig.cancelled(calls[0])
    pen.go_on.set()
    job = await rig.queue.get()
    rig.settle(job)
    assert [(await call).id for call in calls[1:]] == [job.id, job.id]
    assert len(rig.seen(MailSettled)) == 1


async def test_a_first_call_that_ends_as_its_mail_is_queued_does_not_cancel_the_repeated_one(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the first call is cancelled before the second has been handed its job, the second sends the mail itself."""
    pen = Pen(monkeypatch)
    first, second = (rig.send(LARGE_DRAFT, request_id="r1", fingerprint=b"f") for _ in range(2))
    await pen.writing.wait()
    pen.go_on.set()
    dropped = await rig.queue.get()
    await rig.cancelled(first)
    assert dropped.state is MailState.CANCELLED
    job = await rig.queue.get()
    rig.settle(job)
    assert await second == job.mail
    assert job.mail.state is MailState.RELAYED


async def test_a_waiter_that_leaves_takes_nothing_from_the_first(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeated call that is cancelled while the first is being accepted ends alone."""
    pen = Pen(monkeypatch)
    first, second = (rig.send(LARGE_DRAFT, request_id="r1", fingerprint=b"f") for _ in range(2))
    await pen.writing.wait()
    await rig.cancelled(second)
    pen.go_on.set()
    rig.settle(await rig.queue.get())
    assert (await first).state is MailState.RELAYED


class SlowStore(MemoryMailStore):
    """A durable store that takes its time: it answers when the test says so, and keeps what it accepts."""

    durable = True

    def __init__(self) -> None:
        super().__init__(lambda: NOW, retention=Retention(seconds=3600, count=100))
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.kept: list[Entry] = []

    async def accept(self, entries: Sequence[Entry]) -> list[Accepted | Earlier | Running | Conflict]:
        """Keep them once the test says so."""
        self.asked.set()
        await self.answers.wait()
        self.kept += entries
        return await super().accept(entries)

    async def claim(self, request: Request, mail_id: str) -> Accepted | Earlier | Running | Conflict:
        """Claim once the test says so."""
        self.asked.set()
        await self.answers.wait()
        return await super().claim(request, mail_id)


@pytest.mark.parametrize("wait_for", WaitFor)
async def test_a_repeated_request_finds_the_first_while_the_store_waits(wait_for: WaitFor) -> None:
    """Both calls with one request id get the same job once the store has accepted it, and neither before that."""
    store = SlowStore()
    rig = Rig(store=store)
    calls = [asyncio.create_task(rig.accept(request_id="r1", fingerprint=b"f", wait_for=wait_for)) for _ in range(2)]
    await store.asked.wait()
    assert not any(call.done() for call in calls)
    store.answers.set()
    first, second = await asyncio.gather(*calls)
    assert first is second
    assert rig.queue.get_nowait() is first
    assert rig.queue.empty()
    assert len(store.kept) == (wait_for is WaitFor.QUEUE)


async def test_a_guaranteed_mail_is_kept_before_its_caller_is_answered() -> None:
    """A durable store gets the content and the request id in one commit, and the mail is queued after that."""
    store = SlowStore()
    rig = Rig(store=store)
    call = rig.send(wait_for=WaitFor.QUEUE, request_id="r1", fingerprint=b"f")
    await store.asked.wait()
    assert rig.queue.empty()
    store.answers.set()
    mail = await call
    (entry,) = store.kept
    assert (entry.mail.id, entry.fingerprint, entry.progress.pending) == (mail.id, b"f", ("ada@example.org",))
    assert b"Hello Ada" in entry.envelope.content
    assert rig.queue.get_nowait().id == mail.id


class LateStore(SlowStore):
    """A durable store that decides at once, and answers when the test says so."""

    async def accept(self, entries: Sequence[Entry]) -> list[Accepted | Earlier | Running | Conflict]:
        """Keep them, whatever becomes of the call; answer once the test says so."""
        answers = await MemoryMailStore.accept(self, entries)
        self.kept += entries
        self.asked.set()
        await self.answers.wait()
        return answers

    async def claim(self, request: Request, mail_id: str) -> Accepted | Earlier | Running | Conflict:
        """Claim, whatever becomes of the call; answer once the test says so."""
        answer = await MemoryMailStore.claim(self, request, mail_id)
        self.asked.set()
        await self.answers.wait()
        return answer


async def test_a_guaranteed_mail_whose_call_is_cancelled_while_the_store_keeps_it_is_cancelled() -> None:
    """The store does not send it at the next start, and a repeated call that waits has a mail of its own."""
    store = LateStore()
    rig = Rig(store=store)
    first, second = (rig.send(wait_for=WaitFor.QUEUE, request_id="r1", fingerprint=b"f") for _ in range(2))
    await store.asked.wait()
    first.cancel()
    await asyncio.sleep(0)
    assert not first.done()
    store.answers.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    mail = await second
    dropped, kept = [entry.mail.id for entry in store.kept]
    assert kept == mail.id == rig.queue.get_nowait().id
    assert rig.queue.empty()
    assert (await rig.mails.get(ANONYMOUS, dropped)).state is MailState.CANCELLED


async def test_a_stop_while_the_store_keeps_a_guaranteed_mail_cancels_it() -> None:
    """A guaranteed mail that the store commits during a stop is cancelled, and its caller gets Unavailable."""
    store = LateStore()
    rig = Rig(store=store)
    call = rig.send(wait_for=WaitFor.QUEUE)
    await store.asked.wait()
    rig.lifecycle.close()
    store.answers.set()
    with pytest.raises(Unavailable):
        await call
    (entry,) = store.kept
    assert (await rig.mails.get(ANONYMOUS, entry.mail.id)).state is MailState.CANCELLED


async def test_a_claim_that_is_cancelled_before_its_answer_is_released() -> None:
    """The request id does not stay claimed for a mail that nobody sends."""
    store = LateStore()
    rig = Rig(store=store)
    first = rig.send(request_id="r1", fingerprint=b"f")
    await store.asked.wait()
    await rig.cancelled(first)
    store.answers.set()
    job = await rig.accept(request_id="r1", fingerprint=b"f", wait_for=WaitFor.RELAY)
    assert rig.queue.get_nowait() is job


async def test_a_call_that_comes_to_a_released_mail_does_not_wait_for_ever() -> None:
    """A call whose job a stop has released meanwhile gets Unavailable at once instead of waiting for ever."""
    store = SlowStore()
    store.answers.set()
    rig = Rig(store=store)
    job = await rig.accept()
    rig.lifecycle.close()
    with pytest.raises(Unavailable):
        await rig.mails.outcome(call_of(), job)
    ends: list[Mail | Unavailable] = []
    rig.mails.call_when_done(job, lambda _, end: ends.append(end))
    assert [type(end) for end in ends] == [Unavailable]


async def test_a_mail_whose_caller_waits_does_not_touch_a_durable_store() -> None:
    """A mail without a request id whose caller waits is not stored: the caller learns of any loss by itself."""
    store = SlowStore()
    rig = Rig(store=store)
    call = rig.send()
    rig.settle(await rig.queue.get())
    assert (await call).state is MailState.RELAYED
    assert not store.asked.is_set()


# Afterwards, and in between.


async def test_a_mail_taken_back_by_its_caller_keeps_its_request_id(rig: Rig) -> None:
    """A mail that its caller cancelled is decided: the same request again is not a new mail."""
    job = await rig.accept(request_id="r1", fingerprint=b"f")
    await rig.mails.cancel(ANONYMOUS, job.mail.id)
    again = await rig.accept(request_id="r1", fingerprint=b"f")
    assert again.state is MailState.CANCELLED


async def test_a_mail_that_is_abandoned_with_its_call_frees_its_request_id(rig: Rig) -> None:
    """A mail dropped because its caller's time ran out frees its request id, so that the next try sends."""
    call = rig.send(request_id="r1", fingerprint=b"f")
    await rig.queue.get()
    await rig.cancelled(call)
    job = await rig.accept(request_id="r1", fingerprint=b"f")
    assert rig.queue.get_nowait() is job


async def test_the_repr_counts(rig: Rig) -> None:
    """The repr of the service counts open mails and lanes, and shows no content."""
    await rig.accept()
    assert repr(rig.mails).startswith(
        "<MailService <Lifecycle 1 open, 0 deferred, <Dispatcher 0 idle, 0 busy, 0 woken, <MailQu"
    )


async def test_a_retry_needs_the_priority() -> None:
    """An urgent mail is sent again for a caller that may send urgent ones, and for no other."""
    rig = Rig()
    job = await rig.accept(priority=Priority.URGENT)
    rig.settle(job, 550)
    lesser = Caller(job.caller, Permissions(priorities=(Priority.NORMAL,)))
    with pytest.raises(PermissionDenied, match="may not send urgent mails; add urgent to `priorities`"):
        await rig.mails.retry(replace(call_of(), caller=lesser), job.id)
    assert (await rig.mails.retry(call_of(), job.id)).state is MailState.QUEUED
