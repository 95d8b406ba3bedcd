"""A person is forgotten: open mails to them alone end, others go on without them, and settled ones lose them."""

import asyncio

import pytest

from drafts import ADA, read_draft
from mail.rigs import Rig
from otpmail.address import parse_address
from otpmail.callers import Caller
from otpmail.delivery.job import Job
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
    """A stop ends at once, also while a mail is still to settle."""
    job = await rig.accept(read_draft(to=(ADA, BOB), text="Hello"), caller="shop")
    await _forget(rig)
    await rig.mails.forgetting.close()
    rig.settle()
    assert await _recipients(rig, job) == [ADA, BOB]
