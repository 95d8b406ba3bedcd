"""A person is forgotten: open mails to them alone end, others go on without them, and settled ones lose them."""

import asyncio

import pytest

from drafts import ADA, read_draft
from mail.rigs import Rig
from otpmail.address import parse_address
from otpmail.callers import Caller
from otpmail.delivery.job import Job
from otpmail.errors import Stopping, Unavailable
from otpmail.model import MailState

pytestmark = pytest.mark.usefixtures("empty_directory")
SHOP = Caller("shop")
BOB = "bob@example.org"


@pytest.fixture
async def rig() -> Rig:
    """The service, whose queue has places enough."""
    return Rig(queue_size=100)


async def _forget(rig: Rig, address: str = ADA) -> int:
    return await rig.mails.forgetting.forget(SHOP, parse_address(address, "email"))


async def _recipients(rig: Rig, job: Job) -> list[str]:
    return [one.address for one in (await rig.mails.get(SHOP, job.id)).recipients]


async def test_a_mail_that_waits_is_cancelled(rig: Rig) -> None:
    """An open mail to the person alone is cancelled and erased; mails of others and to others are left as they are."""
    ours = await rig.accept(caller="shop")
    theirs = await rig.accept(caller="bank")
    to_bob = await rig.accept(read_draft(to=(BOB,), text="Hello"), caller="shop")
    assert await _forget(rig, "ADA@example.org") == 1
    assert [job.state for job in (ours, theirs, to_bob)] == [MailState.CANCELLED, MailState.QUEUED, MailState.QUEUED]
    assert await _recipients(rig, ours) == []


@pytest.mark.parametrize("recipients", [(ADA,), (ADA, BOB)])
async def test_a_mail_under_way_is_erased_once_it_settles(rig: Rig, recipients: tuple[str, ...]) -> None:
    """A mail that the relay may have goes on, and the person is erased from it at its end."""
    job = await rig.accept(read_draft(to=recipients, text="Hello"), caller="shop")
    rig.queue.discard(job)
    assert rig.lifecycle.start(job)
    assert await _forget(rig) == 0
    rig.settle(job)
    assert job.state is MailState.RELAYED
    while ADA in await _recipients(rig, job):  # noqa: ASYNC110  it is erased by a task of its own
        await asyncio.sleep(0)
    assert await _recipients(rig, job) == [one for one in recipients if one != ADA]


async def test_a_mail_to_others_too_goes_on(rig: Rig) -> None:
    """A mail that waits, and goes to others too, is sent to all, and the person is erased from it at its end."""
    job = await rig.accept(read_draft(to=(ADA, BOB), text="Hello"), caller="shop")
    assert await _forget(rig) == 0
    assert rig.settle().id == job.id
    while ADA in await _recipients(rig, job):  # noqa: ASYNC110  as above
        await asyncio.sleep(0)
    assert await _recipients(rig, job) == [BOB]


async def test_a_stop_waits_for_no_mail(rig: Rig) -> None:
    """A stop ends at once, also while a mail is still to settle, which does so without the person."""
    job = await rig.accept(read_draft(to=(ADA, BOB), text="Hello"), caller="shop")
    await _forget(rig)
    await rig.mails.forgetting.close()
    rig.settle()
    assert await _recipients(rig, job) == [BOB]
    with pytest.raises(Unavailable):
        await _forget(rig)


async def test_a_mail_that_comes_later_is_not_erased(rig: Rig) -> None:
    """A person who has come again since then is found in the mails that were sent since."""
    await _forget(rig)
    rig.now += 1
    job = await rig.accept(caller="shop")
    rig.settle()
    assert await _recipients(rig, job) == [ADA]


async def test_a_store_that_is_down(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the store can't note a person, the call fails, and can be repeated; no task is left."""
    job = await rig.accept(read_draft(to=(ADA, BOB), text="Hello"), caller="shop")
    begin, tries = rig.store.begin_forgetting, 0

    async def begun(caller: str, person: bytes, until: float) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise Unavailable("the store is down")
        await begin(caller, person, until)

    monkeypatch.setattr(rig.store, "begin_forgetting", begun)
    with pytest.raises(Unavailable):
        await _forget(rig)
    assert repr(rig.mails.forgetting) == "<Forgetting 0 persons>"
    await _forget(rig)
    rig.settle()
    assert await _recipients(rig, job) == [BOB]


async def test_calls_at_once_share_a_run(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred calls for one person are one run, which goes on while one of them waits, and ends with the last."""
    erase, runs, goes_on = rig.store.erase, 0, asyncio.Event()

    async def erased(person: bytes) -> int:
        nonlocal runs
        runs += 1
        await goes_on.wait()
        return await erase(person)

    monkeypatch.setattr(rig.store, "erase", erased)
    await rig.accept(caller="shop")
    calls = [asyncio.ensure_future(_forget(rig)) for _ in range(100)]
    other = asyncio.ensure_future(_forget(rig, BOB))
    while runs < 2:  # noqa: ASYNC110  in the next turns of the loop
        await asyncio.sleep(0)
    assert repr(rig.mails.forgetting) == "<Forgetting 2 persons>"
    for call in (*calls[1:], other):
        call.cancel()
    await asyncio.wait((*calls[1:], other))
    await asyncio.sleep(0)
    assert repr(rig.mails.forgetting) == "<Forgetting 1 persons>"
    goes_on.set()
    assert await calls[0] == 1
    await asyncio.sleep(0)
    assert (repr(rig.mails.forgetting), runs) == ("<Forgetting 0 persons>", 2)


async def test_a_call_right_after_a_cancelled_one(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call for a person whose run was cancelled in this turn has a run of its own, also once the first has ended."""
    erase, begun, goes_on = rig.store.erase, asyncio.Semaphore(0), asyncio.Event()

    async def erased(person: bytes) -> int:
        begun.release()
        await goes_on.wait()
        return await erase(person)

    monkeypatch.setattr(rig.store, "erase", erased)
    await rig.accept(caller="shop")
    first = asyncio.ensure_future(_forget(rig))
    await begun.acquire()
    first.cancel()
    second = asyncio.ensure_future(_forget(rig))  # it comes when the run is cancelled, and has not ended
    await begun.acquire()
    assert repr(rig.mails.forgetting) == "<Forgetting 1 persons>"
    third = asyncio.ensure_future(_forget(rig))
    goes_on.set()
    assert (await second, await third) == (0, 0)  # the first has cancelled the mail


async def test_a_stop_right_after_a_cancelled_call(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop waits for the end of a run that was cancelled a moment ago, and calls that wait are refused."""
    ended, begun, never = 0, asyncio.Semaphore(0), asyncio.Event()

    async def erased(person: bytes) -> int:
        nonlocal ended
        begun.release()
        try:
            await never.wait()
        finally:
            ended += 1
        return len(person)

    monkeypatch.setattr(rig.store, "erase", erased)
    first, other = asyncio.ensure_future(_forget(rig)), asyncio.ensure_future(_forget(rig, BOB))
    for _ in (first, other):
        await begun.acquire()
    first.cancel()
    await asyncio.wait((first,))
    await rig.mails.forgetting.close()
    assert ended == 2
    with pytest.raises(Stopping):
        await other
