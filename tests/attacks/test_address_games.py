"""Spellings of an address: those of one mailbox share its code and its guesses, and those of others share nothing."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from attacks.targets import Answer, somebody

if TYPE_CHECKING:
    from attacks.targets import Target

pytestmark = pytest.mark.asyncio(loop_scope="session")

# How an address may be spelled by somebody who wants more guesses, with the plain spelling of the same mailbox.
ONE = {
    "upper case": ("{}@example.org", "{upper}@EXAMPLE.ORG"),
    "blanks around it": ("{}@example.org", " \t{}@example.org\r\n"),
    "a zero-width space behind it": ("{}@example.org", "{}@example.org\u200b"),
    "a sign that shows nothing behind the name": ("{}@example.org", "{}\ufe0f@example.org"),
    "a sign that shows nothing before the name": ("{}@example.org", "\u3164{}@example.org"),
    "a sign that shows nothing in the domain": ("{}@example.org", "{}@exa\u034fmple.org"),
    "a soft hyphen in the domain": ("{}@example.org", "{}@exam\u00adple.org"),
    "the blank of a URL before it": ("{}@example.org", "%20{}@example.org"),
    "the blank of a URL behind it": ("{}@example.org", "{}@example.org%20"),
    "a blank of a URL before the @": ("{}@example.org", "{}%20@example.org"),
    "a blank before the @": ("{}@example.org", "{} @example.org"),
    "a trailing dot": ("{}@example.org", "{}@example.org."),
    "two trailing dots": ("{}@example.org", "{}@example.org.."),
    "an ideographic full stop": ("{}@example.org", "{}@example\u3002org"),
    "a wide letter in the domain": ("{}@example.org", "{}@\uff45xample.org"),
    "the Kelvin sign in the domain": ("{}@kiosk.example", "{}@\u212aiosk.example"),
    "quotes": ("{}@example.org", '"{}"@example.org'),
    "quotes with a backslash": ("{}@example.org", '"\\{}"@example.org'),
    "an encoded word": ("{}@example.org", "=?utf-8?q?{}?=@example.org"),
    "the address of a link": ("{}@example.org", "mailto:{}@example.org"),
    "a port": ("{}@example.org", "{}@example.org:25"),
    "a route": ("{}@example.org", "@other.example:{}@example.org"),
    "angle brackets": ("{}@example.org", "<{}@example.org>"),
    "a comment": ("{}@example.org", "{}(me)@example.org"),
    "NUL": ("{}@example.org", "{}@example.org\0"),
    "NFD for NFC": ("{}.zo\u00eb@example.org", "{}.zoe\u0308@example.org"),
    "A-labels for U-labels": ("{}@b\u00fccher.example", "{}@xn--bcher-kva.example"),
    "upper case in A-labels": ("{}@b\u00fccher.example", "{}@XN--BCHER-KVA.example"),
    "upper case in another script": ("{}@b\u00fccher.example", "{}@B\u00dcCHER.example"),
    "NFD in the domain": ("{}@b\u00fccher.example", "{}@bu\u0308cher.example"),
}

# Addresses that some ways to compare, or some databases, take for that of somebody else.
OTHERS = {
    "Kelvin sign": ("{}.kim@example.org", "{}.\u212aim@example.org"),
    "sharp s": ("{}.strasse@example.org", "{}.stra\u00dfe@example.org"),
    "sharp s in the domain": ("{}@strasse.example", "{}@stra\u00dfe.example"),
    "sharp s by IDNA 2003": ("{}@fass.example", "{}@xn--fa-hia.example"),
    "final sigma in the domain": (
        "{}@\u03b2\u03cc\u03bb\u03bf\u03c3.example",
        "{}@\u03b2\u03cc\u03bb\u03bf\u03c2.example",
    ),
    "wide at sign": ("{}.ada@example.org", "{}.ada\uff20example.org@example.org"),
    "small at sign": ("{}.ada@example.org", "{}.ada@example.org\ufe6bexample.org"),
    "percent sign": ("{}.ada@example.org", "{}.ada%example.org@relay.example"),
    "bang path": ("{}.ada@example.org", "example.org!{}.ada@relay.example"),
    "dotless i": ("{}.mike@example.org", "{}.m\u0131ke@example.org"),
    "dotless i in the domain": ("{}@github.example", "{}@g\u0131thub.example"),
    "I with a dot": ("{}.mike@example.org", "{}.m\u0130ke@example.org"),
    "long s": ("{}.sam@example.org", "{}.\u017fam@example.org"),
    "wide letter": ("{}.ada@example.org", "{}.\uff41da@example.org"),
    "accent": ("{}.zoe@example.org", "{}.zo\u00eb@example.org"),
    "ligature": ("{}.fi@example.org", "{}.\ufb01@example.org"),
    "Cyrillic a": ("{}.ada@example.org", "{}.\u0430da@example.org"),
}


def _both(spellings: tuple[str, str]) -> tuple[str, str]:
    """Fill in a name that no test has used before."""
    name = somebody().partition("@")[0]
    plain, other = (spelling.format(name, upper=name.upper()) for spelling in spellings)
    return plain, other


def _lines(broken: dict[str, str]) -> str:
    """Return all that is broken, which pytest would cut."""
    return "\n".join(f"{game}: {fault}" for game, fault in broken.items())


async def _code_of_plain(target: Target, plain: str, game: str) -> str | None:
    """Return the code of the plain spelling; None where a foreign target mails to no address in such letters."""
    code = await target.code_for(plain)
    is_asked = plain.isascii() or target.system.services
    assert code is not None or not is_asked, f"{game}: no code is mailed to {plain}"
    return code


async def test_another_spelling_gives_no_more_guesses(target: Target) -> None:
    """Two spellings of a mailbox have one code, and no more guesses in turn than one has; either may be refused."""
    broken = dict[str, str]()
    for game, spellings in ONE.items():
        plain, other = _both(spellings)
        code = await _code_of_plain(target, plain, game)
        if code is None:
            continue
        if await target.code_for(other) not in {None, code}:
            broken[game] = "has a code of its own"
            continue
        guesses = itertools.cycle((other, plain))
        compared = 0
        for _ in range(4 * target.limits.attempts):
            tried = await target.guess(next(guesses), code, 1)
            compared += tried[Answer.WRONG]
        if compared != target.limits.attempts:
            broken[game] = f"{compared} guesses were compared"
        elif await target.check(plain, code) is not Answer.REFUSED:
            broken[game] = "the code is checked after its last attempt"
    assert not broken, _lines(broken)


@pytest.mark.one_store
async def test_another_spelling_has_the_same_code_or_none(target: Target) -> None:
    """The code of a mailbox is right under another spelling of it once, or that spelling is refused."""
    broken = dict[str, str]()
    for game, spellings in ONE.items():
        plain, other = _both(spellings)
        code = await _code_of_plain(target, plain, game)
        if code is None:
            continue
        under_other = await target.check(other, code)
        if under_other not in {Answer.RIGHT, Answer.REFUSED}:
            broken[game] = "the code is compared, and wrong, under the other spelling"
            continue
        left = Answer.REFUSED if under_other is Answer.RIGHT else Answer.RIGHT
        if (found := await target.check(plain, code)) is not left:
            broken[game] = f"the code is {under_other.value}, and then {found.value} under its own spelling"
    assert not broken, _lines(broken)


async def test_addresses_that_look_alike_are_others(target: Target) -> None:
    """A code that goes to one mailbox is not valid for another, whose letters only resemble or fold to its own."""
    broken = dict[str, str]()
    for game, spellings in OTHERS.items():
        for victim, attacker in (_both(spellings), tuple(reversed(_both(spellings)))):
            wanted = await target.code_for(victim)
            got = await target.code_for(attacker)
            if got is not None and await target.check(victim, got) is Answer.RIGHT:
                broken[game] = f"the code of {attacker} is right for {victim}"
            elif wanted is not None and wanted != got:
                if await target.check(attacker, wanted) is Answer.RIGHT:
                    broken[game] = f"the code of {victim} is right for {attacker}"
                elif await target.check(victim, wanted) is not Answer.RIGHT:
                    broken[game] = f"the code of {victim} is not right for it"
    assert not broken, _lines(broken)


@pytest.mark.one_store
async def test_a_mail_goes_to_the_address_that_was_asked_for(target: Target) -> None:
    """No mail with a code goes to a mailbox whose letters the address only resembles or folds to."""
    broken = list[str]()
    for game, spellings in OTHERS.items():
        victim, attacker = _both(spellings)
        before = len(target.mails)
        if await target.code_for(attacker) is not None:
            recipients = {recipient for mail in target.mails[before:] for recipient in mail.recipients}
            if victim in recipients:
                broken.append(game)
    assert not broken, broken
