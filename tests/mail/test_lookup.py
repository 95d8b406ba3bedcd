"""Callers look up, watch and cancel mails that they have sent, by id and by request id."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mail.rigs import LARGE_DRAFT, Pen, Rig
from otpmail.callers import ANONYMOUS, Caller
from otpmail.errors import FailedPrecondition, InvalidArgument, NotFound
from otpmail.events import MailSettled
from otpmail.model import Mail, MailState, RecipientResult
from otpmail.store.base import Earlier, Running
from otpmail.store.memory.mails import MemoryMailStore
from otpmail.store.retention import Retention
from rig import NOW

pytestmark = pytest.mark.usefixtures("empty_directory")


@pytest.fixture
async def rig() -> Rig:
    """The service with its defaults."""
    return Rig()


async def test_looking_up(rig: Rig) -> None:
    """Only its caller finds a mail, queued or settled; any other id is NotFound."""
    job = await rig.accept(caller="shop")
    assert await rig.mails.get(Caller("shop"), job.mail.id) == job.mail
    for settled in (False, True):
        if settled:
            rig.settle(rig.queue.get_nowait())
        assert await rig.mails.get(Caller("shop"), job.mail.id) == job.mail
        for caller, mail_id in (("bank", job.mail.id), ("shop", "nope"), ("shop", "x" * 64)):
            with pytest.raises(NotFound):
                await rig.mails.get(Caller(caller), mail_id)


async def _watch(rig: Rig, mail_id: str) -> list[Mail]:
    return [mail async for mail in rig.mails.watch(ANONYMOUS, mail_id)]


@pytest.mark.parametrize(
    "use",
    [
        lambda rig, mail_id: rig.mails.get(ANONYMOUS, mail_id),
        lambda rig, mail_id: rig.mails.cancel(ANONYMOUS, mail_id),
        _watch,
    ],
    ids=["get", "cancel", "watch"],
)
@pytest.mark.parametrize(("mail_id", "error"), [("x" * 64, NotFound), ("x" * 65, InvalidArgument)])
async def test_an_id_that_can_not_be_one(
    rig: Rig, use: Callable[[Rig, str], Any], mail_id: str, error: type[Exception]
) -> None:
    """`get`, `cancel` and `watch` raise InvalidArgument for an id over 64 characters, else NotFound."""
    with pytest.raises(error) as caught:
        await use(rig, mail_id)
    if isinstance(caught.value, InvalidArgument):
        assert caught.value.field == "id"


async def test_watching(rig: Rig) -> None:
    """Every watcher sees the present state and each that follows; one that goes early is not kept."""
    job = await rig.accept()
    watching = asyncio.create_task(_watch(rig, job.mail.id))
    leaving = rig.mails.watch(ANONYMOUS, job.mail.id)
    assert (await anext(leaving)).state is MailState.QUEUED
    await asyncio.sleep(0)
    assert len(rig.waiters.watchers[job]) == 2
    await leaving.aclose()
    assert len(rig.waiters.watchers[job]) == 1
    rig.settle(rig.queue.get_nowait())
    assert [mail.state.name for mail in await watching] == ["QUEUED", "SENDING", "RELAYED"]
    assert not rig.waiters.watchers
    assert await _watch(rig, job.mail.id) == [job.mail]


async def test_another_callers_mail_can_not_be_watched_or_cancelled(rig: Rig) -> None:
    """Another caller's mail is NotFound, as an unknown one is, and stays unchanged."""
    job = await rig.accept(caller="shop")
    with pytest.raises(NotFound):
        await _watch(rig, job.mail.id)
    with pytest.raises(NotFound):
        await rig.mails.cancel(Caller("bank"), job.mail.id)
    assert job.mail.state is MailState.QUEUED


async def test_cancelling(rig: Rig) -> None:
    """A queued mail settles once when it is cancelled, however often, and its waiting caller gets it."""
    call = rig.send()
    job = await rig.queue.get()
    rig.queue.put_back(job)
    for _ in range(2):
        assert (await rig.mails.cancel(ANONYMOUS, job.mail.id)).state is MailState.CANCELLED
    assert (await call).state is MailState.CANCELLED
    assert sum(isinstance(event, MailSettled) for event in rig.events) == 1
    assert rig.queue.empty()


async def test_what_can_not_be_cancelled(rig: Rig) -> None:
    """Cancelling a mail that is in flight, or has settled otherwise, raises FailedPrecondition."""
    job = await rig.accept()
    assert rig.lifecycle.start(rig.queue.get_nowait())
    with pytest.raises(FailedPrecondition):
        await rig.mails.cancel(ANONYMOUS, job.mail.id)
    rig.lifecycle.replied(job, (RecipientResult("ada@example.org", 250),))
    with pytest.raises(FailedPrecondition, match="RELAYED"):
        await rig.mails.cancel(ANONYMOUS, job.mail.id)


# By request id.


async def _watch_request(rig: Rig, request_id: str) -> list[Mail]:
    return [mail async for mail in rig.mails.watch(ANONYMOUS, request_id=request_id)]


async def test_a_mail_is_found_by_its_request_id(rig: Rig) -> None:
    """`get`, `watch` and `cancel` find a mail by its request id, open and settled, for its caller alone."""
    job = await rig.accept(request_id="r1", fingerprint=b"f")
    watching = asyncio.create_task(_watch_request(rig, "r1"))
    await asyncio.sleep(0)
    assert await rig.mails.get(ANONYMOUS, request_id="r1") == job.mail
    with pytest.raises(NotFound):
        await rig.mails.get(Caller("bank"), request_id="r1")
    assert (await rig.mails.cancel(ANONYMOUS, request_id="r1")).state is MailState.CANCELLED
    assert [mail.state.name for mail in await watching] == ["QUEUED", "CANCELLED"]
    assert await _watch_request(rig, "r1") == [job.mail]
    assert await rig.mails.get(ANONYMOUS, request_id="r1") == job.mail
    assert await rig.mails.cancel(ANONYMOUS, request_id="r1") == job.mail


async def test_a_settled_mail_can_not_be_cancelled_by_its_request_id(rig: Rig) -> None:
    """A mail that the relay has accepted stays accepted, whichever name its caller cancels it by."""
    await rig.accept(request_id="r1", fingerprint=b"f")
    rig.settle()
    with pytest.raises(FailedPrecondition, match="RELAYED"):
        await rig.mails.cancel(ANONYMOUS, request_id="r1")


async def test_a_mail_whose_request_id_is_free_again_is_found(rig: Rig) -> None:
    """A mail that expired is found by its request id, until the next mail with that id takes its place."""
    job = await rig.accept(request_id="r1", fingerprint=b"f")
    rig.lifecycle.expire(job)
    assert (await rig.mails.get(ANONYMOUS, request_id="r1")).state is MailState.EXPIRED
    again = await rig.accept(request_id="r1", fingerprint=b"f")
    assert again is not job
    assert await rig.mails.get(ANONYMOUS, request_id="r1") == again.mail
    rig.settle(again)
    assert await rig.mails.get(ANONYMOUS, request_id="r1") == again.mail


@pytest.mark.parametrize("names", [{}, {"mail_id": "m1", "request_id": "r1"}], ids=["neither", "both"])
async def test_a_mail_is_named_by_exactly_one_of_two(rig: Rig, names: dict[str, str]) -> None:
    """The error names both fields where neither or both are given."""
    for use in (rig.mails.get, rig.mails.cancel):
        with pytest.raises(InvalidArgument) as caught:
            await use(ANONYMOUS, **names)
        assert str(caught.value) == "id: exactly one of id and request_id must be given"


@pytest.mark.parametrize("request_id", ["x" * 129, "a\nb"])
async def test_a_text_that_is_no_request_id(rig: Rig, request_id: str) -> None:
    """A text that no request can have as its id is InvalidArgument."""
    with pytest.raises(InvalidArgument) as caught:
        await rig.mails.get(ANONYMOUS, request_id=request_id)
    assert caught.value.field == "request_id"


async def test_a_mail_that_is_being_accepted_is_waited_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelling by request id while the mail is still written cancels it, rather than finding nothing."""
    pen = Pen(monkeypatch)
    call = rig.send(LARGE_DRAFT, request_id="r1", fingerprint=b"f")
    await pen.writing.wait()
    cancelling = asyncio.create_task(rig.mails.cancel(ANONYMOUS, request_id="r1"))
    await asyncio.sleep(0)
    assert not cancelling.done()
    pen.go_on.set()
    assert (await cancelling).state is MailState.CANCELLED
    assert (await call).state is MailState.CANCELLED


async def test_a_mail_that_is_refused_while_it_is_waited_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search by request id ends as NotFound where the mail is not accepted after all."""
    pen = Pen(monkeypatch)
    call = rig.send(LARGE_DRAFT, request_id="r1", fingerprint=b"f")
    await pen.writing.wait()
    looking = asyncio.create_task(rig.mails.get(ANONYMOUS, request_id="r1"))
    await asyncio.sleep(0)
    await rig.cancelled(call)
    with pytest.raises(NotFound):
        await looking


# Of another process.


class SharedStore(MemoryMailStore):
    """A durable store with a mail that another process has, which that process cancels if `cancels` says so."""

    durable = True

    def __init__(self, *, cancels: bool = True) -> None:
        super().__init__(lambda: NOW, retention=Retention(seconds=60, count=10))
        self._cancels = cancels
        self.mail = Mail("m1", ANONYMOUS.name, "<m1@example.org>", NOW, "r1")

    async def get(self, caller: str, mail_id: str) -> Mail | None:
        """Return the mail."""
        return self.mail if (caller, mail_id) == (self.mail.caller, self.mail.id) else None

    async def find(self, caller: str, request_id: str) -> Earlier | Running | None:
        """Return that the mail has not settled."""
        return Running(self.mail.id) if (caller, request_id) == (self.mail.caller, self.mail.request_id) else None

    async def cancel(self, caller: str, mail_id: str) -> Mail | None:
        """Cancel the mail, or return that it is forgotten."""
        if not self._cancels:
            return None
        assert await self.get(caller, mail_id) is not None
        self.mail = replace(self.mail, state=MailState.CANCELLED)
        return self.mail


NAMES: list[dict[str, str]] = [{"mail_id": "m1"}, {"request_id": "r1"}]


@pytest.mark.parametrize("names", NAMES, ids=["id", "request_id"])
async def test_a_mail_that_another_process_has(names: dict[str, str]) -> None:
    """The store answers for a mail of another process, and passes on that it is to be cancelled."""
    store = SharedStore()
    rig = Rig(store=store)
    assert await rig.mails.get(ANONYMOUS, **names) == store.mail
    assert [mail async for mail in rig.mails.watch(ANONYMOUS, **names)] == [store.mail]
    assert (await rig.mails.cancel(ANONYMOUS, **names)).state is MailState.CANCELLED
    with pytest.raises(NotFound):
        await rig.mails.get(Caller("bank"), **names)


@pytest.mark.parametrize("names", NAMES, ids=["id", "request_id"])
async def test_a_mail_that_the_store_forgets_before_it_is_cancelled(names: dict[str, str]) -> None:
    """A mail of another process that is forgotten meanwhile is NotFound."""
    with pytest.raises(NotFound):
        await Rig(store=SharedStore(cancels=False)).mails.cancel(ANONYMOUS, **names)
