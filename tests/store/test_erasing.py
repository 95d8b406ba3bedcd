"""A person whom a caller wants forgotten, in every store: nothing of them is left in settled mails."""

from dataclasses import replace
from pathlib import Path

import pytest

from otpmail.address import parse_address
from otpmail.callers import Caller
from otpmail.model import Challenge, IssuedCode, Mail, MailState, RecipientResult
from otpmail.otp.request import find_place
from otpmail.store.base import Accepted, Earlier, MailStore, Request
from otpmail.store.erasing import person_of
from store.clocks import Clock
from store.conftest import KEYS, left_in, sqlite_store
from store.entries import R1, REMEMBER_SECONDS, entry_of, mail_of, settled
from store.test_retries import fail

ADA, BOB = "ada@example.org", "bob@example.org"
_BOBS = RecipientResult(BOB, 250, "2.0.0", "ok")


async def _settle(mails: MailStore, mail: Mail, *, guaranteed: bool = True) -> Mail:
    """Settle a mail, one that the store has accepted or one that only memory remembers."""
    if guaranteed:
        assert await mails.accept([entry_of(mail)]) == [Accepted()]
    mail = settled(mail, mails.now())
    mails.settle(mail)
    return mail


async def test_a_person_is_erased_from_settled_mails(mails: MailStore) -> None:
    """The recipient goes with the relay's reply and the labels; the mail's id, times and state stay."""
    kept = []
    for mail_id, guaranteed in (("m1", True), ("m2", False)):
        mail = replace(mail_of(mail_id), labels=(("user", "4711"),))
        kept.append(await _settle(mails, mail, guaranteed=guaranteed))
    assert await mails.erase(person_of("shop", "Ada@Example.ORG")) == 2
    for mail in kept:
        assert await mails.get("shop", mail.id) == replace(mail, recipients=(), labels=())
    assert sorted([mail.id async for some in mails.remembered() for mail in some]) == ["m1", "m2"]
    assert await mails.erase(person_of("shop", ADA)) == 0


@pytest.mark.parametrize("guaranteed", [True, False], ids=["kept", "in-memory"])
async def test_an_open_mail_settles_without_the_person(mails: MailStore, clock: Clock, *, guaranteed: bool) -> None:
    """A mail that is open when its person is forgotten settles without them; a later mail has them again."""
    early = mail_of("m1", request_id="r1" if guaranteed else "", create_time=mails.now())
    if guaranteed:
        assert await mails.accept([entry_of(early)]) == [Accepted()]
    await mails.begin_forgetting("shop", person_of("shop", ADA), mails.now() + 1000)
    clock.time += 10
    late = mail_of("m2", create_time=mails.now())
    if guaranteed:
        assert await mails.accept([entry_of(late)]) == [Accepted()]
    for mail in (early, late):
        mails.settle(replace(settled(mail, mails.now()), labels=(("order", "1"),)))
    gone, there = [await mails.get("shop", mail_id) for mail_id in ("m1", "m2")]
    assert gone is not None
    assert there is not None
    assert (gone.state, gone.recipients, gone.labels) == (MailState.RELAYED, (), ())
    assert [one.address for one in there.recipients] == [ADA]
    if guaranteed:
        assert isinstance(await mails.claim(R1, "m3"), Earlier)


async def test_a_failed_mail_that_settles_later_has_no_content(mails: MailStore) -> None:
    """A mail without its person can't be sent again, since its content has the address."""
    entry = entry_of(mail_of(create_time=mails.now()))
    assert await mails.accept([entry]) == [Accepted()]
    await mails.begin_forgetting("shop", person_of("shop", ADA), mails.now() + 1000)
    mails.settle(replace(settled(entry.mail, mails.now()), state=MailState.FAILED), entry=entry)
    assert await mails.retryable("shop", "m1") is None


async def test_a_file_knows_whom_to_forget(tmp_path: Path, clock: Clock) -> None:
    """A mail that comes back after a restart settles without its person, also with a new key, and not for ever."""
    store = sqlite_store(tmp_path / "store.db", clock)
    await store.open()
    for mail_id in ("m1", "m2"):
        assert await store.mails.accept([entry_of(mail_of(mail_id, create_time=clock()))]) == [Accepted()]
    await store.mails.begin_forgetting("shop", person_of("shop", ADA), clock() + 1000)
    await store.close()
    store = sqlite_store(tmp_path / "store.db", clock, keys={"k2": bytes(range(32))} | KEYS)
    await store.open()
    assert store.mails.octets == store.mails._forgotten.octets > 0
    [one, _] = await left_in(store)
    store.mails.settle(settled(one.mail, clock()))
    found = await store.mails.get("shop", one.mail.id)
    assert found is not None
    assert found.recipients == ()
    clock.time += 1000
    await store.challenges.sweep()
    await store.close()
    assert person_of("shop", ADA) not in (tmp_path / "store.db").read_bytes()
    store = sqlite_store(tmp_path / "store.db", clock)
    await store.open()
    assert repr(store.mails._forgotten) == "<Forgotten 0 persons>"
    assert store.mails.octets == 0
    await store.close()


async def test_others_are_not_erased(mails: MailStore) -> None:
    """Mails of another caller, and to another address, stay; so do the other recipients of a mail to several."""
    theirs = await _settle(mails, mail_of("m1", caller="bank"))
    several = replace(settled(mail_of("m2"), mails.now()), state=MailState.PARTIAL)
    several = replace(several, recipients=(*several.recipients, _BOBS))
    await mails.accept([entry_of(mail_of("m2"))])
    mails.settle(several)
    assert await mails.erase(person_of("shop", "carol@example.org")) == 0
    assert await mails.erase(person_of("shop", ADA)) == 1
    assert await mails.get("bank", "m1") == theirs
    found = await mails.get("shop", "m2")
    assert found is not None
    assert found.recipients == (_BOBS,)


async def test_one_mail_of_a_commit_is_erased(mails: MailStore) -> None:
    """Mails that settle together, of which one is to the person, are all found afterwards."""
    entries = [entry_of(mail_of(f"m{number}")) for number in range(5)]
    await mails.accept(entries)
    for number, entry in enumerate(entries):
        mail = settled(entry.mail, mails.now())
        mails.settle(mail if number == 3 else replace(mail, recipients=(_BOBS,)))
    assert await mails.erase(person_of("shop", ADA)) == 1
    found = [await mails.get("shop", f"m{number}") for number in range(5)]
    assert [mail.recipients if mail is not None else None for mail in found] == [(_BOBS,)] * 3 + [(), (_BOBS,)]


async def test_a_repeated_request_is_not_sent_again(mails: MailStore) -> None:
    """The request id of an erased mail finds it for its day, also where its caller waited for the relay."""
    await _settle(mails, mail_of(request_id="r1", create_time=mails.now()))
    other = Request("shop", "r2", b"f")
    await mails.claim(other, "m2")
    mails.settle(settled(mail_of("m2", request_id="r2", create_time=mails.now()), mails.now()))
    assert await mails.erase(person_of("shop", ADA)) == 2
    for request, mail_id in ((R1, "m1"), (other, "m2")):
        found = await mails.claim(request, "m3")
        assert isinstance(found, Earlier)
        assert (found.mail.id, found.mail.state, found.mail.recipients) == (mail_id, MailState.RELAYED, ())


async def test_what_only_a_request_id_finds_is_erased(mails: MailStore, clock: Clock) -> None:
    """A mail that is remembered for its request id alone is erased too."""
    await _settle(mails, mail_of(request_id="r1", create_time=mails.now()))
    clock.time += REMEMBER_SECONDS
    assert await mails.get("shop", "m1") is None
    assert await mails.erase(person_of("shop", ADA)) == 1
    found = await mails.find("shop", "r1")
    assert isinstance(found, Earlier)
    assert found.mail.recipients == ()


async def test_a_failed_mail_has_no_content_then(mails: MailStore) -> None:
    """A failed mail whose recipient was erased can't be sent again: its content is gone."""
    for mail_id, accepted in (("m1", True), ("m2", False)):
        await fail(mails, mail_id, accepted=accepted)
    assert await mails.erase(person_of("shop", ADA)) == 2
    for mail_id in ("m1", "m2"):
        assert await mails.retryable("shop", mail_id) is None


async def test_the_record_of_a_code_is_erased(mails: MailStore) -> None:
    """The mail of a code keeps no key of the record of its address."""
    person = person_of("shop", ADA)
    issued = IssuedCode(Challenge(bytes(16), "k1", 600.0), 30.0, person)
    await _settle(mails, replace(mail_of(), issued=issued))
    await mails.erase(person)
    found = await mails.get("shop", "m1")
    assert found is not None
    assert found.issued == replace(issued, record=b"")


def test_a_person_is_the_key_of_codes() -> None:
    """The digest of a person is the key under which codes of the address are kept, however the address is written."""
    for text in (ADA, "ADA@Example.org", '"a b"@example.org', "ü@example.org", "ada@bücher.example"):
        spec = parse_address(text, "email").spec
        assert person_of("shop", spec) == find_place(Caller("shop"), text, "").key
