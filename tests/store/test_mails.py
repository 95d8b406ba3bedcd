"""Request ids and settled mails of every store: a request id decides once, and a mail is remembered for a while."""

import pytest

from otpmail.store.base import Accepted, Conflict, Earlier, MailStore, Request, Running
from store.clocks import Clock
from store.entries import DAY, R1, REMEMBER_SECONDS, entry_of, mail_of, settled


async def test_a_request_id_is_claimed_once(mails: MailStore) -> None:
    """The first claim takes a request id; later claims find its mail, first as running and then as settled."""
    assert await mails.claim(R1, "m1") == Accepted()
    assert await mails.claim(R1, "m2") == Running("m1")
    ended = settled(mail_of(request_id="r1"))
    mails.settle(ended)
    assert await mails.claim(R1, "m3") == Earlier(ended)


async def test_a_request_id_with_other_content_is_a_conflict(mails: MailStore) -> None:
    """Other content under a request id is a Conflict that changes nothing, before and after its mail has settled."""
    other = Request("shop", "r1", b"g")
    await mails.claim(R1, "m1")
    assert await mails.claim(other, "m2") == Conflict()
    assert await mails.claim(R1, "m2") == Running("m1")
    mails.settle(ended := settled(mail_of(request_id="r1")))
    assert await mails.claim(other, "m2") == Conflict()
    assert await mails.claim(R1, "m2") == Earlier(ended)


async def test_request_ids_are_each_callers_own(mails: MailStore) -> None:
    """Two callers may use the same request id for different mails."""
    await mails.claim(R1, "m1")
    assert await mails.claim(Request("bank", "r1", b"other"), "m2") == Accepted()
    mails.settle(settled(mail_of("m2", caller="bank", request_id="r1")))
    assert await mails.claim(R1, "m3") == Running("m1")


async def test_a_released_request_id_counts_as_new(mails: MailStore) -> None:
    """A released request id may be claimed for other content, and releasing it twice changes nothing."""
    await mails.claim(R1, "m1")
    for _ in range(2):
        mails.release(R1, "m1")
    assert await mails.claim(Request("shop", "r1", b"g"), "m2") == Accepted()


async def test_only_the_mail_that_has_a_request_id_releases_it(mails: MailStore) -> None:
    """Only the running mail that has a request id releases it, and any other release changes nothing."""
    await mails.claim(R1, "m1")
    mails.release(R1, "m2")
    assert await mails.claim(R1, "m3") == Running("m1")
    ended = settled(mail_of(request_id="r1"))
    mails.settle(ended)
    mails.release(R1, "m1")
    assert await mails.claim(R1, "m3") == Earlier(ended)


async def test_a_mail_is_accepted_with_the_request_id_that_was_claimed_for_it(mails: MailStore) -> None:
    """The store accepts the mail for which a request id was claimed, and no second mail under that id."""
    await mails.claim(R1, "m1")
    assert await mails.accept([entry_of(mail_of("m1", request_id="r1"))]) == [Accepted()]
    assert await mails.accept([entry_of(mail_of("m2", request_id="r1"))]) == [Running("m1")]


async def test_all_remembered_mails_are_found(mails: MailStore, clock: Clock) -> None:
    """Every settled mail that is remembered is found once, with a request id or without, and none past its time."""

    async def found() -> list[str]:
        return sorted([mail.id async for some in mails.remembered() for mail in some])

    assert await found() == []
    await mails.claim(R1, "m1")
    await mails.accept([entry_of(mail_of("m1", request_id="r1")), entry_of(mail_of("m2"))])
    assert await found() == []
    mails.settle(settled(mail_of("m1", request_id="r1")))
    mails.settle(settled(mail_of("m2")))
    mails.settle(settled(mail_of("m3", caller="bank")))
    assert await found() == ["m1", "m2", "m3"]
    clock.time += REMEMBER_SECONDS + 1
    assert await found() == []


async def test_a_mail_that_settles_undecided_frees_its_request_id(mails: MailStore) -> None:
    """A mail that settles with `keep_request=False` frees its request id and is remembered by its id alone."""
    await mails.claim(R1, "m1")
    ended = settled(mail_of(request_id="r1"))
    mails.settle(ended, keep_request=False)
    assert await mails.get("shop", "m1") == ended
    assert await mails.claim(Request("shop", "r1", b"other"), "m2") == Accepted()


async def test_a_request_id_finds_its_mail(mails: MailStore) -> None:
    """`find` returns the running mail of a request id, then the settled one, to its caller alone."""
    assert await mails.find("shop", "r1") is None
    await mails.claim(R1, "m1")
    assert await mails.find("shop", "r1") == Running("m1")
    mails.settle(ended := settled(mail_of(request_id="r1")))
    assert await mails.find("shop", "r1") == Earlier(ended)
    assert await mails.find("bank", "r1") is None


async def test_a_request_id_finds_its_mail_for_a_day(mails: MailStore, clock: Clock) -> None:
    """`find` returns a settled mail as long as a repeated request does, though `get` has forgotten it."""
    await mails.claim(R1, "m1")
    mails.settle(ended := settled(mail_of(request_id="r1", create_time=clock()), clock()))
    clock.time += DAY - 1
    assert await mails.get("shop", "m1") is None
    assert await mails.find("shop", "r1") == Earlier(ended)
    clock.time += 1
    assert await mails.find("shop", "r1") is None


async def test_a_free_request_id_finds_the_last_mail(mails: MailStore, clock: Clock) -> None:
    """`find` returns a mail that freed its request id, as long as `get` does, or until the id comes again."""
    await mails.claim(R1, "m1")
    mails.settle(undecided := settled(mail_of(request_id="r1"), clock()), keep_request=False)
    assert await mails.find("shop", "r1") == Earlier(undecided)
    assert await mails.claim(R1, "m2") == Accepted()
    assert await mails.find("shop", "r1") == Running("m2")
    mails.settle(ended := settled(mail_of("m2", request_id="r1", create_time=2.0), clock()))
    assert await mails.find("shop", "r1") == Earlier(ended)


async def test_a_free_request_id_is_forgotten_with_its_mail(mails: MailStore, clock: Clock) -> None:
    """`find` and `get` forget a mail that freed its request id at the same time."""
    await mails.claim(R1, "m1")
    mails.settle(settled(mail_of(request_id="r1", create_time=clock()), clock()), keep_request=False)
    clock.time += REMEMBER_SECONDS
    assert await mails.find("shop", "r1") is None
    assert await mails.get("shop", "m1") is None


async def test_accepting_claims_the_request_ids(mails: MailStore) -> None:
    """`accept` claims request ids and answers each entry in order; entries without an id are never the same mail."""
    first = [entry_of(mail_of("m1", request_id="r1")), entry_of(mail_of("m2")), entry_of(mail_of("m3"))]
    assert await mails.accept(first) == [Accepted()] * 3
    again = [
        entry_of(mail_of("m4", request_id="r1")),
        entry_of(mail_of("m5", request_id="r1"), b"g"),
        entry_of(mail_of("m6", request_id="r2")),
        entry_of(mail_of("m7", request_id="r2")),
    ]
    assert await mails.accept(again) == [Running("m1"), Conflict(), Accepted(), Running("m6")]
    assert await mails.claim(R1, "m8") == Running("m1")


async def test_request_ids_live_a_day(mails: MailStore, clock: Clock) -> None:
    """A retry within a day of the first call is known; after it the id is free, unless its mail still runs."""
    runs = Request("shop", "runs", b"f")
    await mails.claim(R1, "m1")
    await mails.claim(runs, "m2")
    begun = clock.time
    clock.time += 3600
    mails.settle(settled(mail_of(request_id="r1", create_time=begun), clock.time))
    clock.time += DAY - 3601
    assert isinstance(await mails.claim(R1, "m3"), Earlier)
    clock.time += 1
    assert await mails.claim(Request("shop", "r1", b"other"), "m3") == Accepted()
    assert await mails.claim(runs, "m4") == Running("m2")


@pytest.mark.requests(seconds=300.0)
async def test_request_ids_live_as_long_as_is_set(mails: MailStore, clock: Clock) -> None:
    """MAIL_REQUEST_SECONDS says how long a repeated request finds its mail, and that no longer."""
    await mails.claim(R1, "m1")
    mails.settle(settled(mail_of(request_id="r1", create_time=clock.time), clock.time))
    clock.time += 299
    assert isinstance(await mails.claim(R1, "m3"), Earlier)
    clock.time += 1
    assert await mails.claim(Request("shop", "r1", b"other"), "m3") == Accepted()


async def test_a_mail_that_ran_for_more_than_a_day_leaves_no_request_id(mails: MailStore, clock: Clock) -> None:
    """A mail that settles more than a day after its first call leaves no request id behind."""
    await mails.claim(R1, "m1")
    clock.time += 2 * DAY
    assert await mails.claim(R1, "m2") == Running("m1")
    mails.settle(settled(mail_of(request_id="r1"), clock.time))
    assert await mails.claim(R1, "m2") == Accepted()


async def test_a_settled_mail_is_its_callers(mails: MailStore) -> None:
    """Only its caller finds a settled mail by its id, by `get` and by `cancel` alike."""
    mails.settle(settled(mail_of()))
    for find in (mails.get, mails.cancel):
        assert await find("shop", "m1") == settled(mail_of())
        assert await find("bank", "m1") is None
        assert await find("shop", "m2") is None


async def test_settled_mails_are_forgotten_after_their_time(mails: MailStore, clock: Clock) -> None:
    """A settled mail is found until its time is over and not after it, without a sweep in between."""
    mails.settle(settled(mail_of(), clock.time))
    clock.time += REMEMBER_SECONDS - 1
    assert await mails.get("shop", "m1") is not None
    clock.time += 1
    assert await mails.get("shop", "m1") is None
