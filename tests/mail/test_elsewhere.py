"""Repeated request ids whose mail another process has: a call waits for it, joins it, or takes it over."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from mail.rigs import DRAFT, Rig
from otpmail.callers import ANONYMOUS
from otpmail.errors import Unavailable
from otpmail.model import Mail, MailState, WaitFor
from otpmail.store.base import (
    Accepted,
    Conflict,
    Earlier,
    Entry,
    Owner,
    Request,
    Running,
    TakenOver,
)
from otpmail.store.memory.mails import MemoryMailStore
from otpmail.store.retention import Retention
from rig import NOW

pytestmark = pytest.mark.usefixtures("empty_directory")

Answer = Accepted | Earlier | Running | Conflict | TakenOver
RUNNING = Running("m1")
MAIL = Mail("m1", ANONYMOUS.name, "<m1@example.org>", NOW, "r1")
RELAYED = replace(MAIL, state=MailState.RELAYED, settle_time=NOW)


class SharedStore(MemoryMailStore):
    """A durable store that gives its `answers` one after the other, the last one again and again."""

    durable = True

    def __init__(self, *answers: Answer) -> None:
        super().__init__(self.time, retention=Retention(seconds=60, count=10))
        self.answers = list(answers)
        self.seconds = 0.0
        self.asked = asyncio.Event()
        self.released: list[str] = []
        self.mail: Mail | None = MAIL

    def time(self) -> float:
        """Return the time, which goes on by a second for each answer."""
        return NOW + self.seconds

    async def claim(  # type: ignore[override]  # other stores may take over
        self,
        request: Request,  # noqa: ARG002  the answers are the test's
        mail_id: str,  # noqa: ARG002  as above
    ) -> Answer:
        """Give the next answer."""
        self.asked.set()
        self.seconds += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def accept(self, entries: Sequence[Entry]) -> list[Accepted | Earlier | Running | Conflict]:
        """Give the next answer for each."""
        return [answer for entry in entries if not isinstance(answer := await self.claim(_REQUEST, ""), TakenOver)]

    def release(self, request: Request, mail_id: str) -> None:  # noqa: ARG002  as above
        """Note the mail."""
        self.released.append(mail_id)

    async def erase(self, person: bytes) -> int:  # noqa: ARG002  as above
        """Return that nothing of the person is kept."""
        return 0

    async def get(self, caller: str, mail_id: str) -> Mail | None:  # noqa: ARG002  as above
        """Return the mail as the other process has it."""
        return self.mail if mail_id == MAIL.id else None

    async def find(self, caller: str, request_id: str) -> Earlier | Running | None:  # noqa: ARG002  as above
        """Return that it has not settled."""
        return RUNNING

    def follow(self, owner: Owner) -> None:
        """Return at once."""


_REQUEST = Request(ANONYMOUS.name, "r1", b"")


async def test_a_call_waits_for_the_mail_of_another_process() -> None:
    """A call that waits for the relay gets the mail of another process once that has settled."""
    rig = Rig(store=SharedStore(RUNNING, RUNNING, Earlier(RELAYED)))
    assert await rig.send(request_id="r1") == RELAYED
    assert rig.queue.empty()


async def test_a_call_takes_over_the_mail_of_a_process_that_ended() -> None:
    """A call sends the mail itself, with the id that it had, once the process is gone that was sending it."""
    rig = Rig(store=SharedStore(RUNNING, TakenOver("m1")))
    sending = rig.send(request_id="r1")
    job = await rig.queue.get()
    assert (job.id, job.message_id) == ("m1", "<m1@example.org>")
    rig.settle(job)
    assert (await sending).state is MailState.RELAYED


async def test_a_call_counts_as_new_where_the_first_was_not_accepted() -> None:
    """A call has a mail of its own where the request id is free again, since that of another process failed."""
    rig = Rig(store=SharedStore(RUNNING, Accepted()))
    sending = rig.send(request_id="r1")
    job = await rig.queue.get()
    assert job.id != "m1"
    rig.settle(job)
    assert (await sending).id == job.id


async def test_a_call_does_not_wait_for_ever() -> None:
    """A call gets Unavailable where another process sends its mail for longer than a caller waits."""
    store = SharedStore(RUNNING)
    with pytest.raises(Unavailable, match="another process is sending"):
        await Rig(store=store, mail_wait_seconds=2).send(request_id="r1")
    assert len(store.released) == 1


async def test_a_cancelled_call_waits_no_more() -> None:
    """A call that is cancelled while it waits for another process sends nothing."""
    store = SharedStore(RUNNING)
    rig = Rig(store=store)
    sending = rig.send(request_id="r1")
    await store.asked.wait()
    await rig.cancelled(sending)
    assert rig.queue.empty()


async def test_a_look_up_does_not_wait_for_another_process() -> None:
    """A mail of another process is looked up at once, also while a call here waits for its end."""
    store = SharedStore(RUNNING)
    rig = Rig(store=store)
    sending = rig.send(request_id="r1")
    await store.asked.wait()
    async with asyncio.timeout(20):
        assert await rig.mails.get(ANONYMOUS, request_id="r1") == MAIL
        store.mail = None
        with pytest.raises(Unavailable):
            await rig.mails.get(ANONYMOUS, request_id="r1")
    await rig.cancelled(sending)


async def test_a_guaranteed_mail_of_another_process_is_accepted_already() -> None:
    """A call that waits for the queue gets the mail as another process has it, at once."""
    store = SharedStore(RUNNING)
    rig = Rig(store=store)
    job = await rig.accept(DRAFT, request_id="r1", wait_for=WaitFor.QUEUE)
    assert job.mail == MAIL
    assert rig.queue.empty()
    store.mail = None
    with pytest.raises(Unavailable):
        await rig.accept(DRAFT, request_id="r1", wait_for=WaitFor.QUEUE)
