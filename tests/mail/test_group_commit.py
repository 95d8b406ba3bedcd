"""Guaranteed mails of single calls that share a commit: how groups are formed, and what each call gets of its group."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from drafts import read_draft
from mail.rigs import Rig
from otpmail.callers import ANONYMOUS, TRACE, Trace
from otpmail.errors import InvalidArgument, StoreError, Unavailable
from otpmail.model import Mail, MailState, Priority, WaitFor
from otpmail.store.base import Accepted, Conflict, Earlier, Entry, Running
from otpmail.store.memory.mails import MemoryMailStore
from otpmail.store.retention import Retention
from rig import NOW

pytestmark = pytest.mark.usefixtures("empty_directory")


class GroupStore(MemoryMailStore):
    """A durable store that keeps a commit at once, and answers when the test says so, or with `error`.

    `answers` has what it says to those with a request id; it accepts all others.
    """

    durable = True

    def __init__(self, **answers: Accepted | Earlier | Running | Conflict) -> None:
        super().__init__(lambda: NOW, retention=Retention(seconds=3600, count=100))
        self.answers = answers
        self.error: Exception | None = None
        self.commits: list[Sequence[Entry]] = []
        self.asked, self.goes_on = asyncio.Event(), asyncio.Event()
        self.traces: set[Trace] = set()

    async def accept(self, entries: Sequence[Entry]) -> list[Accepted | Earlier | Running | Conflict]:
        """Keep them in one commit."""
        self.commits.append(entries)
        self.traces.add(TRACE.get())
        self.asked.set()
        await self.goes_on.wait()
        if self.error is not None:
            raise self.error
        return [self.answers.get(entry.mail.request_id, Accepted()) for entry in entries]

    def sizes(self) -> list[int]:
        """Return how many mails each commit had."""
        return [len(entries) for entries in self.commits]


class Calls(Rig):
    """A MailService over a GroupStore, with room for many mails."""

    def __init__(self, **answers: Accepted | Earlier | Running | Conflict) -> None:
        self.file = GroupStore(**answers)
        super().__init__(store=self.file, queue_size=1000)

    def begin(self, name: str = "ada", **more: Any) -> "asyncio.Task[Mail]":
        """Begin a call with a guaranteed mail, whose subject is `name`."""
        return self.send(read_draft(subject=name, text="Hello"), wait_for=WaitFor.QUEUE, **more)

    async def begun(self, *names: str, **more: Any) -> "list[asyncio.Task[Mail]]":
        """Begin calls in one turn of the loop, and wait until the store has their mails."""
        calls = [self.begin(name, **more) for name in names]
        await self.file.asked.wait()
        return calls

    def queued(self) -> list[str]:
        """Return the ids of the mails that wait for a worker, in the order in which they would go."""
        return [self.queue.get_nowait().id for _ in range(self.queue.qsize())]

    def is_empty(self) -> bool:
        """Whether no call holds a place or a request id any more, and no task runs."""
        places = self.admission.places
        is_free = not self.admission.reserved and places.held(ANONYMOUS.name) == places.taken
        return is_free and repr(self.mails).endswith(
            "<Keeping <GroupCommit 0 gathered, 0 groups without an answer>, <Idempotency 0 being accepted>>>"
        )


# How groups are formed.


async def test_the_mails_of_one_turn_share_a_commit() -> None:
    """Calls that come in one turn of the loop share a commit; those that come while it runs have the next one."""
    rig = Calls()
    first = await rig.begun("a", "b", "c")
    rig.file.asked.clear()
    second = await rig.begun("d", "e")
    assert rig.file.sizes() == [3, 2]
    rig.file.goes_on.set()
    mails = await asyncio.gather(*first, *second)
    assert rig.queued() == [mail.id for mail in mails]
    assert rig.is_empty()


async def test_a_lone_mail_has_a_commit_at_once() -> None:
    """A call that is alone waits for nobody: the store has its mail in the next turn of the loop."""
    rig = Calls()
    call = rig.begin()
    await asyncio.sleep(0)  # it runs as far as its group
    await asyncio.sleep(0)
    assert rig.file.sizes() == [1]
    rig.file.goes_on.set()
    assert (await call).state is MailState.QUEUED


async def test_a_commit_has_a_hundred_mails_at_most() -> None:
    """A burst of calls is not one huge commit, and each of its mails is in one."""
    rig = Calls()
    rig.file.goes_on.set()
    mails = await asyncio.gather(*(rig.begin() for _ in range(250)))
    assert rig.file.sizes() == [100, 100, 50]
    assert [entry.mail.id for commit in rig.file.commits for entry in commit] == [mail.id for mail in mails]


async def test_a_commit_has_about_a_mebibyte_at_most() -> None:
    """Mails of 50 KB are kept about twenty at a time."""
    rig = Calls()
    rig.file.goes_on.set()
    draft = read_draft(text=("x" * 70 + "\n") * 700)
    await asyncio.gather(*(rig.send(draft, wait_for=WaitFor.QUEUE) for _ in range(64)))
    sizes = [sum(len(entry.envelope.content) for entry in commit) for commit in rig.file.commits]
    assert len(sizes) == 4
    assert all(1 << 20 <= size < 1.1 * (1 << 20) for size in sizes[:-1])


async def test_urgent_mails_of_a_commit_go_first() -> None:
    """The mails of a commit leave by priority, and within one by the order of their calls."""
    rig = Calls()
    order = (Priority.BULK, Priority.NORMAL, Priority.URGENT, Priority.NORMAL)
    calls = [rig.begin(priority=priority) for priority in order]
    rig.file.goes_on.set()
    bulk, normal, urgent, other = [mail.id for mail in await asyncio.gather(*calls)]
    assert rig.queued() == [urgent, normal, other, bulk]


async def test_a_burst_of_one_caller_keeps_to_its_share() -> None:
    """Mails that wait for their commit count for their caller's half of the queue, from the turn of their calls on."""
    rig = Calls()
    rig.file.goes_on.set()
    await rig.accept(caller="bank")
    calls = [asyncio.create_task(rig.accept(caller="shop")) for _ in range(600)]
    ends = await asyncio.gather(*calls, return_exceptions=True)
    half = rig.admission.places.for_others // 2
    assert sum(not isinstance(end, Exception) for end in ends) == half


async def test_a_commit_is_of_no_single_call() -> None:
    """Log lines of the store about a commit do not carry the ids of the call that came first."""
    rig = Calls()
    rig.file.goes_on.set()
    TRACE.set(Trace(request_id="first"))
    await rig.begin()
    assert rig.file.traces == {Trace()}


# Calls that go.


async def test_a_cancelled_call_takes_its_own_mail_along() -> None:
    """A cancelled call has its mail cancelled once it is kept, so that no start sends it; other mails are accepted."""
    rig = Calls()
    first, cancelled, last = await rig.begun("a", "b", "c")
    cancelled.cancel()
    await asyncio.sleep(0)
    assert not cancelled.done()
    rig.file.goes_on.set()
    mails = await asyncio.gather(first, last)
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert rig.queued() == [mail.id for mail in mails]
    [commit] = rig.file.commits
    assert (await rig.mails.get(ANONYMOUS, commit[1].mail.id)).state is MailState.CANCELLED
    assert rig.is_empty()


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_cancelled_call_holds_all_until_the_answer(times: int) -> None:
    """However often a call is cancelled, its request id and its place are free only once the store has answered.

    A repeated call waits that long, and then has a mail of its own.
    """
    rig = Calls()
    first, other = await rig.begun("a", "b", request_id="r1", fingerprint=b"f"), rig.begin("c")
    for _ in range(times):
        first[0].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not any(call.done() for call in (*first, other))
    assert (rig.admission.reserved, rig.admission.places.held(ANONYMOUS.name)) == (2, 2)
    assert rig.file.sizes() == [1, 1]
    rig.file.goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await first[0]
    mails = await asyncio.gather(other, first[1])
    assert rig.queued() == [mail.id for mail in mails]
    assert rig.is_empty()


async def test_a_call_that_goes_before_the_commit_leaves_no_mail() -> None:
    """The store does not get a mail whose call was cancelled in the turn in which it came."""
    rig = Calls()
    kept, cancelled = rig.begin("a"), rig.begin("b")
    await asyncio.sleep(0)
    cancelled.cancel()
    rig.file.goes_on.set()
    mail = await kept
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert [entry.mail.id for commit in rig.file.commits for entry in commit] == [mail.id]
    assert rig.is_empty()


async def test_no_commit_where_all_calls_have_gone() -> None:
    """The store is not asked for a group that nobody waits for."""
    rig = Calls()
    calls = [rig.begin(), rig.begin()]
    await asyncio.sleep(0)
    await rig.cancelled(*calls)
    assert not rig.file.commits
    assert rig.is_empty()


async def test_the_deadline_of_one_call() -> None:
    """A call whose time is over ends with its mail cancelled, once the store has answered, and alone."""
    rig = Calls()
    hurried = asyncio.timeout(None)

    async def call() -> Mail:
        async with hurried:
            return await rig.begin("a")

    calls = asyncio.create_task(call()), rig.begin("b")
    await rig.file.asked.wait()
    hurried.reschedule(asyncio.get_running_loop().time())
    while not hurried.expired():  # noqa: ASYNC110  the timeout has no event
        await asyncio.sleep(0)
    rig.file.goes_on.set()
    mail = await calls[1]
    with pytest.raises(TimeoutError):
        await calls[0]
    assert rig.queued() == [mail.id]
    assert rig.is_empty()


# The mails that are refused.


@pytest.mark.parametrize("error", [Unavailable("full"), StoreError("broken"), RuntimeError("a mistake of ours")])
async def test_all_calls_of_a_commit_that_fails_learn_of_it(error: Exception) -> None:
    """Each call of the group gets the store's error, nothing is queued, and each request id may come again."""
    rig = Calls()
    rig.file.error = error
    calls = [rig.begin(request_id=f"r{number}") for number in range(3)]
    rig.file.goes_on.set()
    assert await asyncio.gather(*calls, return_exceptions=True) == [error] * 3
    assert rig.queue.empty()
    assert rig.is_empty()
    rig.file.error = None
    assert (await rig.begin(request_id="r1")).state is MailState.QUEUED


async def test_what_is_refused_is_one_calls_own() -> None:
    """Of a commit each call gets the answer about its own request id; the mails of the others are accepted."""
    settled = Mail("m1", ANONYMOUS.name, "<m1@example.org>", NOW, "earlier", MailState.RELAYED, settle_time=NOW)
    rig = Calls(conflict=Conflict(), earlier=Earlier(settled), running=Running("m2"))
    rig.file.goes_on.set()
    other = await rig.begin()
    rig.file.answers["joined"] = Running(other.id)
    ids = ("", "conflict", "earlier", "running", "joined", "new")
    calls = [rig.begin(request_id=request_id, fingerprint=b"f") for request_id in ids]
    first, conflict, earlier, running, joined, last = await asyncio.gather(*calls, return_exceptions=True)
    assert rig.file.sizes() == [1, 6]
    assert isinstance(conflict, InvalidArgument)
    assert earlier == settled
    assert isinstance(running, Unavailable)  # another process has it, and the store does not find it
    assert joined == other
    assert isinstance(first, Mail)
    assert isinstance(last, Mail)
    assert rig.queued() == [other.id, first.id, last.id]
    assert rig.is_empty()


async def test_a_stop_during_a_commit() -> None:
    """Mails that the store keeps during a stop are cancelled there, and each of their calls gets Unavailable."""
    rig = Calls()
    calls = await rig.begun("a", "b", "c")
    rig.backlog.close()
    rig.file.goes_on.set()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(end) for end in ends] == [Unavailable] * 3
    [commit] = rig.file.commits
    states = [(await rig.mails.get(ANONYMOUS, entry.mail.id)).state for entry in commit]
    assert states == [MailState.CANCELLED] * 3
    assert rig.is_empty()


def test_a_loop_that_ends_during_a_commit_waits_for_no_store() -> None:
    """The end of the loop ends calls whose commit has no answer, though they wait for it when cancelled."""

    async def main() -> "list[asyncio.Task[Mail]]":
        rig = Calls()
        return await rig.begun("a", "b")

    calls = asyncio.run(main())
    assert all(call.cancelled() for call in calls)
