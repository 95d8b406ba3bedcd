"""Mails that failed, in every store: their content is kept for a retry, which opens them again once."""

from dataclasses import replace

from otpmail.model import MailState, RecipientResult
from otpmail.store.base import Accepted, Conflict, Earlier, Entry, MailStore, Progress, Request, Running
from store.clocks import Clock
from store.entries import DAY, R1, REMEMBER_SECONDS, entry_of, mail_of, settled

_REJECTED = RecipientResult("ada@example.org", 550, "5.1.1", "no such user")


def failed(entry: Entry, settle_time: float) -> Entry:
    """Return the entry as the lifecycle gives it to `settle`: the relay has rejected the mail."""
    mail = replace(entry.mail, state=MailState.FAILED, recipients=(_REJECTED,), attempts=1, settle_time=settle_time)
    return replace(entry, mail=mail, progress=Progress(pending=(), results=(_REJECTED,), attempts=1))


def reopened(entry: Entry, deadline: float = 5000.0) -> Entry:
    """Return the entry of the mail once it is open again."""
    mail = replace(entry.mail, state=MailState.QUEUED, settle_time=None, recipients=())
    return replace(entry, mail=mail, deadline=deadline, progress=Progress(pending=("ada@example.org",), attempts=1))


async def fail(mails: MailStore, mail_id: str = "m1", *, request_id: str = "", accepted: bool = True) -> Entry:
    """Settle a mail as failed, and return it as it settled."""
    entry = entry_of(mail_of(mail_id, request_id=request_id, create_time=mails.now()))
    if accepted:
        assert await mails.accept([entry]) == [Accepted()]
    entry = failed(entry, mails.now())
    mails.settle(entry.mail, entry=entry)
    return entry


async def test_the_content_of_a_failed_mail_is_kept(mails: MailStore) -> None:
    """A mail that settles with its entry is found with content, terms and progress, by its caller alone."""
    for mail_id, accepted in (("m1", True), ("m2", False)):
        entry = await fail(mails, mail_id, accepted=accepted)
        assert await mails.retryable("shop", mail_id) == entry
        assert await mails.retryable("bank", mail_id) is None
    assert await mails.retryable("shop", "nope") is None


async def test_the_content_of_other_mails_is_dropped(mails: MailStore) -> None:
    """A mail that is open, and one that settles without an entry, are not found with their content."""
    await mails.accept([entry_of(mail_of("m1")), entry_of(mail_of("m2"))])
    mails.settle(settled(mail_of("m1"), mails.now()))
    assert await mails.retryable("shop", "m1") is None
    assert await mails.retryable("shop", "m2") is None


async def test_the_content_of_a_claimed_mail_is_kept(mails: MailStore) -> None:
    """A mail whose request id was claimed, and whose content no store had, is found with it once it has failed."""
    await mails.claim(R1, "m1")
    entry = await fail(mails, request_id="r1", accepted=False)
    assert await mails.retryable("shop", "m1") == entry
    assert await mails.reopen(reopened(entry), mails.now())
    assert await mails.claim(R1, "m2") == Running("m1")


async def test_content_is_forgotten_with_its_mail(mails: MailStore, clock: Clock) -> None:
    """The content of a failed mail is kept as long as the mail is remembered, and no retry opens it after that."""
    await mails.claim(R1, "m1")
    entry = await fail(mails, request_id="r1")
    clock.time += REMEMBER_SECONDS - 1
    assert await mails.retryable("shop", "m1") is not None
    clock.time += 1
    assert await mails.retryable("shop", "m1") is None
    assert not await mails.reopen(reopened(entry), entry.mail.settle_time or 0)


async def test_a_mail_is_reopened_once(mails: MailStore) -> None:
    """The first reopening of a failed mail opens it, and all further ones change nothing."""
    entry = await fail(mails)
    again = reopened(entry)
    assert await mails.reopen(again, entry.mail.settle_time or 0)
    assert not await mails.reopen(again, entry.mail.settle_time or 0)
    assert await mails.retryable("shop", "m1") is None
    assert [mail async for some in mails.remembered() for mail in some] == []


async def test_a_mail_that_failed_again_is_not_reopened_as_it_was(mails: MailStore, clock: Clock) -> None:
    """A reopening by what was read before the mail failed a second time changes nothing."""
    first = await fail(mails)
    assert await mails.reopen(reopened(first), first.mail.settle_time or 0)
    clock.time += 1
    second = failed(reopened(first), clock())
    mails.settle(second.mail, entry=second)
    assert not await mails.reopen(reopened(first), first.mail.settle_time or 0)
    assert await mails.get("shop", "m1") == second.mail
    assert await mails.retryable("shop", "m1") == second
    assert await mails.reopen(reopened(second), second.mail.settle_time or 0)


async def test_a_reopened_mail_settles_as_any_other(mails: MailStore) -> None:
    """A reopened mail that is relayed is remembered as such, once, and can't be reopened."""
    entry = await fail(mails, request_id="r1")
    await mails.reopen(reopened(entry), entry.mail.settle_time or 0)
    ended = settled(entry.mail, mails.now())
    mails.settle(ended)
    assert await mails.get("shop", "m1") == ended
    assert await mails.claim(R1, "m2") == Earlier(ended)
    assert await mails.retryable("shop", "m1") is None
    assert [mail async for some in mails.remembered() for mail in some] == [ended]


async def test_a_reopened_mail_has_its_request_id(mails: MailStore) -> None:
    """A request id that was kept, or free, finds the reopened mail as running, and other content is a conflict."""
    for mail_id, request_id, keep_request in (("m1", "r1", True), ("m2", "r2", False)):
        request = Request("shop", request_id, b"f")
        entry = failed(entry_of(mail_of(mail_id, request_id=request_id)), mails.now())
        await mails.accept([entry_of(mail_of(mail_id, request_id=request_id))])
        mails.settle(entry.mail, keep_request=keep_request, entry=entry)
        assert await mails.reopen(reopened(entry), mails.now())
        assert await mails.claim(request, "m3") == Running(mail_id)
        assert await mails.claim(Request("shop", request_id, b"g"), "m3") == Conflict()
        assert await mails.find("shop", request_id) == Running(mail_id)


async def test_a_request_id_that_came_again_keeps_its_new_mail(mails: MailStore) -> None:
    """A failed mail whose free request id has a later mail is not reopened, neither while that is open nor after."""
    entry = failed(entry_of(mail_of("m1", request_id="r1")), mails.now())
    await mails.accept([entry_of(mail_of("m1", request_id="r1"))])
    mails.settle(entry.mail, keep_request=False, entry=entry)
    assert await mails.claim(R1, "m2") == Accepted()
    assert not await mails.reopen(reopened(entry), mails.now())
    mails.settle(ended := settled(mail_of("m2", request_id="r1", create_time=2.0), mails.now()))
    assert not await mails.reopen(reopened(entry), mails.now())
    assert await mails.claim(R1, "m3") == Earlier(ended)


async def test_a_free_request_id_is_reopened_for_a_day(mails: MailStore, clock: Clock) -> None:
    """A reopened mail settles under its request id for a day from when it was accepted."""
    entry = await fail(mails, request_id="r1")
    clock.time += 10
    assert await mails.reopen(reopened(entry), entry.mail.settle_time or 0)
    mails.settle(ended := settled(entry.mail, clock()))
    clock.time += DAY - 11
    assert await mails.claim(R1, "m2") == Earlier(ended)
    clock.time += 1
    assert await mails.claim(R1, "m2") == Accepted()
