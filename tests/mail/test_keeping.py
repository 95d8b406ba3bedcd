"""Groups of guaranteed mails in which one is a repeated request whose first mail waits in the file."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from mail.rigs import DRAFT, Rig
from otpmail.delivery.job import Job
from otpmail.errors import CallerError, Unavailable
from otpmail.mail.submission import Submission
from otpmail.model import Mail, WaitFor
from otpmail.store.base import Accepted, Conflict, Earlier, Entry, Left, Running
from otpmail.store.memory.mails import MemoryMailStore
from otpmail.store.retention import Retention
from rig import NOW, call_of

pytestmark = pytest.mark.usefixtures("empty_directory")


class FileStore(MemoryMailStore):
    """A durable store that has a mail of the request id `r0` in its file, and keeps all others."""

    durable = True

    def __init__(self) -> None:
        super().__init__(lambda: NOW, retention=Retention(seconds=60, count=10))
        self.looks = 0
        self.asked, self.goes_on = asyncio.Event(), asyncio.Event()
        self.goes_on.set()

    async def accept(self, entries: Sequence[Entry]) -> list[Accepted | Earlier | Running | Conflict]:
        """Answer for each mail, once it may go on."""
        self.asked.set()
        await self.goes_on.wait()
        return [Running("m0") if entry.mail.request_id == "r0" else Accepted() for entry in entries]

    async def get(self, caller: str, mail_id: str) -> Mail | None:  # noqa: ARG002  no mail is to be found
        """Fail, as while the file can't be read."""
        self.looks += 1
        raise Unavailable("the file can't be read")


class UnreadFile:
    """The content of the mails in the file, which nobody reads: a recalled mail stays there."""

    def left(self) -> Iterator[Left]:
        """Yield nothing."""
        yield from ()

    async def read(self, mail_ids: Sequence[str]) -> tuple[list[Entry], list[str]]:
        """Fail: the backlog does not run."""
        raise NotImplementedError


async def _begun(rig: Rig) -> "asyncio.Task[list[Job | CallerError]]":
    """Begin to have a group of three kept, the second of which is the repeated request."""
    group = []
    for number in (1, 0, 2):
        submission = Submission(draft=DRAFT, wait_for=WaitFor.QUEUE, request_id=f"r{number}")
        prepared = await rig.mails.prepare(call_of(), submission, rig.admission, lambda: None)
        assert prepared is not None
        group.append(prepared)
    return asyncio.create_task(rig.mails.keep(group))


async def _keeping(rig: Rig) -> "asyncio.Task[list[Job | CallerError]]":
    """Have the group kept as far as the look into the file."""
    keeping = await _begun(rig)
    while rig.queue.qsize() < 2:
        assert not keeping.done()
        await asyncio.sleep(0)
    return keeping


async def test_kept_mails_are_submitted_before_the_file_is_read() -> None:
    """The mails of a group that the store keeps have jobs, although the call goes while a repeated one is looked up."""
    rig = Rig(store=FileStore(), contents=UnreadFile())
    async with asyncio.timeout(20):
        keeping = await _keeping(rig)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert [job.request_id for job in rig.lifecycle.jobs.values()] == ["r1", "r2"]
    assert rig.admission.reserved == 0


async def test_a_failed_look_is_the_end_of_one_mail() -> None:
    """A repeated request whose first mail can't be read fails alone, and the others of its group are accepted."""
    store = FileStore()
    rig = Rig(store=store)
    async with asyncio.timeout(20):
        first, repeated, last = await (await _keeping(rig))
    assert isinstance(first, Job)
    assert isinstance(repeated, Unavailable)
    assert isinstance(last, Job)
    assert store.looks == 1


@pytest.mark.parametrize("times", [1, 2])
async def test_a_cancelled_group_holds_its_places_until_the_answer(times: int) -> None:
    """However often its call is cancelled, a group ends once the store has answered, and its mails are cancelled."""
    store = FileStore()
    store.goes_on.clear()
    rig = Rig(store=store)
    keeping = await _begun(rig)
    await store.asked.wait()
    for _ in range(times):
        keeping.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not keeping.done()
    assert rig.admission.reserved == 3
    store.goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert rig.admission.reserved == 0
    assert rig.queue.empty()
