"""Callers list their mails, newest first, page by page."""

import asyncio
from dataclasses import replace

import pytest

from mail.rigs import Rig
from otpmail.callers import Caller
from otpmail.errors import InvalidArgument
from otpmail.mail.listing import DEFAULT_PAGE, MOST_PAGE, MOST_RECIPIENTS, Page, Query
from otpmail.model import Mail, MailState, RecipientResult
from otpmail.store.base import MailStore
from otpmail.store.memory import MemoryStore
from otpmail.store.retention import Retention
from rig import NOW
from rules import POLICY

pytestmark = pytest.mark.usefixtures("empty_directory")

SHOP = Caller("shop")


@pytest.fixture
async def rig() -> Rig:
    """The service, which remembers enough mails."""
    store = MemoryStore(lambda: NOW, retention=Retention(seconds=3600, count=100_000), rules=POLICY)
    return Rig(store=store.mails, queue_size=100)


def _settled(number: int, **more: object) -> Mail:
    mail = Mail(
        *(f"m{number:05}", "shop", "<m@example.org>", 1000.0 + number),
        request_id=f"r{number}",
        state=MailState.RELAYED,
        recipients=(RecipientResult(f"p{number}@example.org", 250),),
        settle_time=5000.0,
    )
    return replace(mail, **more)  # type: ignore[arg-type]


def _remember(rig: Rig, *mails: Mail) -> None:
    store: MailStore = rig.store
    for mail in mails:
        store.settle(replace(mail, settle_time=rig.store.now()))


async def _all(rig: Rig, **query: object) -> list[Page]:
    pages = [await rig.mails.list(SHOP, Query(**query))]  # type: ignore[arg-type]
    while pages[-1].next_page_token:
        query["page_token"] = pages[-1].next_page_token
        pages.append(await rig.mails.list(SHOP, Query(**query)))  # type: ignore[arg-type]
    return pages


def _ids(pages: list[Page]) -> list[str]:
    return [mail.id for page in pages for mail in page.mails]


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
async def test_every_mail_is_on_one_page(rig: Rig, size: int) -> None:
    """All pages together have each mail of the caller once, newest first, settled in whatever order or not at all."""
    mails = [_settled(number) for number in range(50)]
    _remember(rig, *mails[::2], *mails[1::2], _settled(99, caller="bank"))
    jobs = [await rig.accept(caller="shop") for _ in range(5)]
    pages = await _all(rig, page_size=size)
    newest = sorted([*mails, *(job.mail for job in jobs)], key=lambda mail: (mail.create_time, mail.id), reverse=True)
    assert _ids(pages) == [mail.id for mail in newest]
    assert all(len(page.mails) == size for page in pages[:-1])


async def test_what_is_asked_for(rig: Rig) -> None:
    """State, recipient in any spelling and request id leave the others out, together too."""
    _remember(rig, *[_settled(number) for number in range(3)], _settled(3, state=MailState.FAILED))
    job = await rig.accept(caller="shop")
    assert _ids(await _all(rig, state=MailState.FAILED)) == ["m00003"]
    assert _ids(await _all(rig, state=MailState.QUEUED)) == [job.id]
    assert _ids(await _all(rig, recipient="P1@Example.org")) == ["m00001"]
    assert _ids(await _all(rig, request_id="r2")) == ["m00002"]
    assert _ids(await _all(rig, request_id="r2", state=MailState.FAILED)) == []
    assert _ids(await _all(rig, recipient=job.envelope.recipients[0])) == [job.id]


async def test_a_page_stands_still_while_mails_come_and_settle(rig: Rig) -> None:
    """A mail that is accepted or settles between two pages moves no other to another page, and comes once."""
    _remember(rig, *[_settled(number) for number in range(4)])
    first = await rig.accept(caller="shop")
    page = await rig.mails.list(SHOP, Query(page_size=2))
    assert [mail.id for mail in page.mails] == [first.id, "m00003"]
    rig.settle(rig.queue.get_nowait())
    await rig.accept(caller="shop")
    rest = await rig.mails.list(SHOP, Query(page_size=10, page_token=page.next_page_token))
    assert ([mail.id for mail in rest.mails], rest.next_page_token) == (["m00002", "m00001", "m00000"], "")


async def test_sizes(rig: Rig) -> None:
    """Without a size a page has 100 mails, and never more than 1000, nor more recipients than that."""
    _remember(rig, *[_settled(number) for number in range(MOST_PAGE + 1)])
    assert len((await rig.mails.list(SHOP, Query())).mails) == DEFAULT_PAGE
    assert len((await rig.mails.list(SHOP, Query(page_size=2**31 - 1))).mails) == MOST_PAGE
    many = tuple(RecipientResult(f"p{number}@example.org") for number in range(MOST_RECIPIENTS - 1))
    _remember(rig, *[_settled(2000 + number, recipients=many) for number in range(3)])
    page = await rig.mails.list(SHOP, Query(page_size=3))
    assert [mail.id for mail in page.mails] == ["m02002"]
    assert len(_ids(await _all(rig, page_size=1000))) == MOST_PAGE + 4


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (Query(page_size=-1), "page_size"),
        (Query(page_token="x"), "page_token"),
        (Query(page_token="é" * 4), "page_token"),
        (Query(page_token="A" * 400), "page_token"),
        (Query(page_token="__________8="), "page_token"),
        (Query(recipient="nobody"), "recipient"),
        (Query(request_id="x" * 129), "request_id"),
    ],
)
async def test_a_field_that_can_not_be_one(rig: Rig, query: Query, field: str) -> None:
    """A wrong field is named, and a token that holds no place lists nothing."""
    if query.page_token.startswith("__"):  # not a number: no mail stands behind it
        assert await rig.mails.list(SHOP, query) == Page(())
        return
    with pytest.raises(InvalidArgument) as caught:
        await rig.mails.list(SHOP, query)
    assert caught.value.field == field


async def test_others_have_the_loop_meanwhile(rig: Rig) -> None:
    """Another task runs between two slices, and a second page waits for the first."""
    _remember(rig, *[_settled(number) for number in range(1000)])
    pages = asyncio.gather(*(rig.mails.list(SHOP, Query()) for _ in range(2)))
    turns = 0
    while not pages.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 2 * 5
    first, second = await pages
    assert first == second
