"""Codes of letters in a relay's words: masked or withheld in every form that a relay may quote them in."""

import base64
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost import seconds_of
from otpmail.model import ALPHABET
from otpmail.smtp.letter_codes import LONG_CODE, of_letters, shows_letters
from otpmail.smtp.redaction import LONG, MASK, MAX_TEXT, NO_SECRETS, WITHHELD, Redactor
from otpmail.smtp.replies import Reply, describe, result

CODE, SHOWN = "7F3KQ2ABXTMC", "7F3K-Q2AB-XTMC"


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _said(text: str, code: str = CODE, status: int = 550) -> str:
    return result("ada@example.org", Reply(status, f"5.7.1 {text}".encode()), NO_SECRETS, code).reply


@pytest.mark.parametrize("status", [250, 550])
@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (f"spam: '{SHOWN} is your code'", "spam: '*** is your code'"),
        (f"spam: '{CODE} is your code'", "spam: '*** is your code'"),
        (f"spam: '{SHOWN.lower()} is your code'", "spam: '*** is your code'"),
        ("code 7F3K Q2AB\n5.7.1 XTMC in two lines", "code *** in two lines"),
        ("code 7 F.3_K-Q:2/A\u00a0B(X)T\u200bM*C, sir", "code ***, sir"),
        ("code ７Ｆ３Ｋ－Ｑ２ＡＢ－ＸＴＭＣ", "code ***"),
        (f"id a{SHOWN}b refused", "id a***b refused"),
        (f"twice {CODE}{SHOWN}", "twice ******"),
        (f"7F3K{SHOWN}Q2ABXTMC around itself", "*** around itself"),
        ("Subject: '7F3K-Q2AB-XTM...'", "Subject: '***...'"),
        ("Subject: 7F3K-Q2AB-XT", "Subject: ***"),
        ("Subject: 7F3K-Q2AB-X", "Subject: 7F3K-Q2AB-X"),
        ("7F3K-Q2AB of XTMC", "7F3K-Q2AB of XTMC"),
        ("queued as 4F2GH73TK9Z", "queued as 4F2GH73TK9Z"),
    ],
)
def test_a_code_of_letters_is_masked(text: str, reply: str, status: int) -> None:
    """A code is masked in any case, with anything but letters and digits between; no more is, in a good reply too."""
    assert _said(text, status=status) == reply


@pytest.mark.parametrize(
    "text",
    [
        f"https://x.test/?s={''.join(f'%{ord(letter):x}' for letter in SHOWN)}",
        "".join(f"={ord(letter):02X}" for letter in SHOWN),
        "".join(f"&#{ord(letter)};" for letter in CODE),
        "".join(f"<b>{letter}</b>" for letter in SHOWN),
        "".join(f"\\u00{ord(letter):x}" for letter in CODE),
        CODE.encode().hex(),
        f"a {SHOWN.encode().hex(' ')}",
        *(_b64("x" * before + form + " is your code") for before in range(3) for form in (CODE, SHOWN)),
        *(_b64(_b64("x" * before + form)) for before in range(3) for form in (CODE, SHOWN)),
        base64.b64encode(SHOWN.encode("utf-16-le")).decode(),
        f"Subject: =?utf-8?b?{_b64('Ihr Code: 7F3K-')}?=\n5.7.1  =?utf-8?b?{_b64('Q2AB-XTMC')}?=",
    ],
)
def test_a_code_of_letters_that_is_encoded_withholds_the_text(text: str) -> None:
    """An encoding that mail, URLs or HTML use leaves nothing of the text."""
    assert _said(text) in {WITHHELD, MASK}
    assert CODE not in _said(f"see {urllib.parse.quote('ä ' + SHOWN)} ok").replace("-", "")


@given(
    code=st.text(ALPHABET, min_size=4, max_size=12),
    before=st.text(max_size=40),
    between=st.text(" .-_\t\n/()\u200b", max_size=5),
    after=st.text(max_size=600),
)
def test_no_text_keeps_a_code_of_letters(code: str, before: str, between: str, after: str) -> None:
    """Whatever stands around it, no letter code of any length is in the result, also where the text is cut."""
    said = _said(f"{before}{between.join(code)}{after}", code)
    assert not shows_letters(said, [code])
    assert len(said) <= MAX_TEXT


@given(text=st.text(st.characters(max_codepoint=127)))
def test_the_fast_path_reads_the_same(text: str) -> None:
    """A text of ASCII has the same letters as when a character of another script follows it."""
    code = "".join(filter(str.isalnum, text.upper()))[:12]
    if len(code) >= 4 and of_letters([code]):
        assert shows_letters(text, [code])
        assert shows_letters(f"{text}\u00e9", [code])
    assert of_letters(["271828", CODE, "100200"]) == [CODE]


def test_the_status_code_and_the_text_together() -> None:
    """A code that runs from the enhanced status code into the text leaves its class alone."""
    assert describe(Reply(550, b"5.7.23 ABCDEFGHJK no"), NO_SECRETS, ("23ABCDEFGHJK",)) == "550 5.0.0 ABCDEFGHJK no"


def test_a_code_of_an_earlier_mail_is_masked() -> None:
    """The last codes of a connection are known. An older one of twelve letters is masked by how it looks."""
    redactor = Redactor().remembering(("555666", CODE))
    said = result("ada@example.org", Reply(250, f"2.0.0 copy of {SHOWN}".encode()), redactor)
    assert said.reply == "copy of ***"
    words = f"15 mails like '{SHOWN}', '{CODE}', from 4F2GH73TK9Z, OUTLOOK-PROTECTION"
    assert (
        Redactor().line(words, masks_numbers=True) == "15 mails like '***', '***', from 4F2GH73TK9Z, OUTLOOK-PROTECTION"
    )
    assert LONG_CODE.search("UNRECOGNIZED") is None


@pytest.mark.parametrize(
    "text", [*(mark * 21_000 for mark in ("7 ", "A", "7F3", "37", "3 7", "é", CODE, f"{SHOWN} ")), "7F3K" * 300]
)
def test_no_reply_takes_long(text: str) -> None:
    """The largest reply is read in milliseconds, also with many codes of letters in flight."""
    codes = [CODE, *(f"{CODE[:8]}{one}{two}{one}{two}" for one in ALPHABET for two in ALPHABET[:4])]
    assert seconds_of(lambda: Redactor().line(text, codes, masks_numbers=True)) < 0.5
    assert len(text) > LONG or text.startswith(CODE[:4])
