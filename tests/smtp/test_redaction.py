"""A relay's words: secrets are masked in every form that a relay may quote them in, and the rest stays readable."""

import base64
import html
import quopri
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost import seconds_of
from otpmail.model import RecipientResult
from otpmail.smtp.redaction import LONG, MASK, MAX_TEXT, NO_SECRETS, WITHHELD, Redactor, clean, cut, shows
from otpmail.smtp.replies import Reply, describe, result

CODE = "493817"
USER, PASSWORD, TOKEN = "codes@example.org", "tr0ub4dor&3 #ü", "ya29.a0Af_B-yC" * 20


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _utf16(text: str, order: str) -> str:
    return base64.b64encode(text.encode(f"utf-16-{order}")).decode()


def _said(text: str, redactor: Redactor = NO_SECRETS, code: str = CODE) -> RecipientResult:
    return result("ada@example.org", Reply(550, text.encode()), redactor, code)


# Codes.


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("5.7.1 spam: 'Your code: 493817'", "spam: 'Your code: ***'"),
        ("5.7.1 493817", "***"),
        ("5.7.1 code 493 817, sir", "code ***, sir"),
        ("5.7.1 code 4-9-3-8-1-7", "code ***"),
        ("5.7.1 code 493\u00a0817", "code ***"),
        ("5.7.1 code ４９３８１７ or ٤٩٣٨١٧", "code *** or ***"),
        ("5.7.1 your code is 493\n5.7.1 817 in two lines", "your code is *** in two lines"),
        ("5.7.1 quoted: > 49=\n5.7.1 3817", "quoted: > ***"),
        ("5.7.1 at 10.0.0.493, 817 times", "at 10.0.0.*** times"),
        ("5.7.1 id 114938172 refused", "id 11***2 refused"),
        ("5.7.1 twice 493817493817", "twice ******"),
        ("5.7.1 34 39 33 38 31 37 in hexadecimal", "*** in hexadecimal"),
        ("5.7.1 =34=39=33=38=31=37 in quoted-printable", "=*** in quoted-printable"),
        ("5.7.1 %34%39%33%38%31%37 in a URL", "%*** in a URL"),
        ("5.7.1 Subject: 'Your code: 4938...'", "Subject: 'Your code: ***...'"),
        ("5.7.1 Your code: 49381", "Your code: ***"),
        ("5.7.1 Your code: 493", "Your code: 493"),
        ("5.7.1 4938 times", "4938 times"),
        ("5.7.1 49[34:39:33:38:31:37]3817 around itself", "*** around itself"),
        ("5.7.1 493[493817]817, 49(49(493817)3817)3817", "***, ***"),
        ("5.7.1 493 of 817 from 493.16.8.17", "493 of 817 from 493.16.8.17"),
    ],
)
def test_the_digits_of_a_code_are_masked(text: str, reply: str) -> None:
    """The code is masked wherever its digits stand in their order, with anything but letters between; no more is."""
    assert _said(text).reply == reply


@pytest.mark.parametrize(
    "text",
    [
        "5.7.1 https://x.test/?s=Your%20code%3A%204%3938%317",
        "5.7.1 " + "".join(f"&#{ord(digit)};" for digit in CODE),
        "5.7.1 " + "".join(f"&#x{ord(digit):x};" for digit in CODE),
        "5.7.1 <b>493</b>&nbsp;<b>817</b>",
        "5.7.1 <td class=w1>493</td><td class=w2>817</td>",
        "5.7.1 " + "".join(f"\\u00{ord(digit):x}" for digit in CODE),
        "5.7.1 493\\r\\n817",
        *(f"5.7.1 {_b64('x' * before + CODE + ' is your code')}" for before in range(3)),
        f"5.7.1 {_b64('Subject: Your code is ' + CODE)[:20]}\n5.7.1 {_b64('Subject: Your code is ' + CODE)[20:]}",
        f"5.7.1 Subject: =?utf-8?b?{_b64('Su código: 493')}?=\n5.7.1  =?utf-8?b?{_b64('817')}?=",
        "5.7.1 ④⑨③⑧①⑦ or ⁴⁹³⁸¹⁷",
        "5.7.1 Subject: =?utf-8?q?Su_c=C3=B3digo=3A_493?= =?utf-8?q?817?=",
        *(f"5.7.1 {_utf16(f'{chr(65) * before}{CODE} is it', order)}" for before in range(3) for order in ("le", "be")),
        *(f"5.7.1 {_b64(_b64('x' * before + CODE))}" for before in range(3)),
        f"5.7.1 {_b64(_b64('Your code is ' + CODE + '.'))[3:]}",
        f"5.7.1 {_b64(_b64('It is ' + CODE))[:15]}\n5.7.1 {_b64(_b64('It is ' + CODE))[15:]}",
    ],
)
def test_a_code_that_is_encoded_withholds_the_text(text: str) -> None:
    """A code in an encoding that mail, URLs or HTML use leaves nothing of the text; the reply codes stay."""
    assert _said(text) == RecipientResult("ada@example.org", 550, "5.7.1", WITHHELD)


@pytest.mark.parametrize("word", ["QueuedAsAbCdEf0123456789", "4f1c2b3a" * 4, "ADMA" * 6, "NAA5ADMAOAAxADgA"])
def test_long_words_without_the_code_are_kept(word: str) -> None:
    """A refusal with an id, or with another code in base64, is not changed."""
    assert _said(f"5.7.1 refused as {word}").reply == f"refused as {word}"


def test_a_code_in_utf_16_as_it_came_is_masked() -> None:
    """Octets that do not print stand between the digits then."""
    said = result("ada@example.org", Reply(550, b"5.7.1 code " + CODE.encode("utf-16-le")), NO_SECRETS, CODE)
    assert said.reply == "code ***?"


@given(before=st.text(max_size=40), between=st.text(" .-_\t\n/()\u200b", max_size=5), after=st.text(max_size=600))
def test_no_text_keeps_the_code(before: str, between: str, after: str) -> None:
    """Whatever stands around it, the code is not in the result, also where the text is cut."""
    said = _said(f"{before}{between.join(CODE)}{after}").reply
    assert CODE not in "".join(filter(str.isdecimal, said))
    assert len(said) <= MAX_TEXT


@pytest.mark.parametrize("length", range(MAX_TEXT - 8, MAX_TEXT + 2))
def test_the_cut_leaves_no_part_of_a_code(length: int) -> None:
    """A code that stands where the text is cut is masked before the cut: no first digits of it are left."""
    assert not any(map(str.isdecimal, _said("5.7.1 " + "x" * length + CODE + "y" * 100).reply))


@pytest.mark.parametrize("length", range(LONG - 8, LONG + 2))
def test_a_code_that_is_read_in_part_shows_no_part(length: int) -> None:
    """Where masks make a long text short, the part of a code that stood at the end of what is read is not left."""
    spaced = (" " * 40).join(CODE)
    quoted = f"{spaced}x" * (length // (len(spaced) + 1))
    said = _said(f"5.7.1 {quoted}{'=' * (length - len(quoted))}{CODE}{'y' * 9000}").reply
    assert not any(map(str.isdecimal, said))


def test_a_code_in_the_status_code() -> None:
    """Digits of the enhanced status code that are the code leave its class alone."""
    assert _said("5.493.817 no") == RecipientResult("ada@example.org", 550, "5.0.0", "no")
    assert _said("5.7.26 no") == RecipientResult("ada@example.org", 550, "5.7.26", "no")
    assert _said("5.7.49 3817 no") == RecipientResult("ada@example.org", 550, "5.0.0", "3817 no")
    assert _said("5.7.1 234 no", code="571234") == RecipientResult("ada@example.org", 550, "5.0.0", "234 no")
    assert _said("938 no", code="550938") == RecipientResult("ada@example.org", 550, "", WITHHELD)


def test_numbers_are_masked_where_the_codes_are_not_known() -> None:
    """Numbers that may be an earlier mail's code are masked; status codes, IP addresses and short ones are kept."""
    said = b"4.7.28 [203.0.113.70] 15 mails like 'Your code: 493817', '493 817'"
    kept = "421 4.7.28 [203.0.113.70] 15 mails like 'Your code: ***', '***'"
    assert describe(Reply(421, said), masks_numbers=True) == kept


# Credentials.

PLAIN = Redactor.of_credentials(USER, PASSWORD)


@pytest.mark.parametrize(
    "quoted",
    [
        PASSWORD,
        urllib.parse.quote(PASSWORD),
        html.escape(PASSWORD),
        _b64(PASSWORD),
        _b64(PASSWORD).rstrip("="),
        _b64(USER),
        _b64(f"\0{USER}\0{PASSWORD}"),
        _b64(f"{USER}\0{USER}\0{PASSWORD}"),
        _b64(f"{USER}:{PASSWORD}"),
        _b64(f"{USER} 9e95aaa1bb3ab0bd4d1b9e95aaa1bb3a"),
        _b64(f"\0{USER}\0{PASSWORD}")[:-6],
        _b64(PASSWORD)[:12],
        PASSWORD[:9],
    ],
)
@pytest.mark.parametrize("form", ["AUTH PLAIN {}", "({})", "{}", "said='{}'; no", "{}\n5.7.8 {}"])
def test_credentials_are_masked(quoted: str, form: str) -> None:
    """Password, its base64 in every answer to AUTH, the user's base64, and long pieces of them are masked."""
    said = _said("5.7.8 " + form.format(quoted, quoted), PLAIN).reply
    assert MASK in said
    for length in range(4, len(quoted)):
        assert quoted[-length:] not in said
    assert quoted[:4] not in said


def test_a_token_is_masked() -> None:
    """A token of any length, and the XOAUTH2 answer that holds it, are masked over the lines of a reply too."""
    redactor = Redactor.of_credentials(USER, TOKEN)
    answer = _b64(f"user={USER}\x01auth=Bearer {TOKEN}\x01\x01")
    for quoted in (TOKEN, answer, f"{answer[:70]}\n5.7.8 {answer[70:140]}", urllib.parse.quote(TOKEN)):
        said = _said(f"5.7.8 Invalid token {quoted} given", redactor).reply
        assert MASK in said
        assert not any(quoted[start : start + 12] in said for start in range(0, 100, 7)), said


@pytest.mark.parametrize(
    "text",
    [
        "Username and Password not accepted. For more information, go to https://support.google.com/mail/?p=BadCreds",
        "<ada@example.org>: Recipient address rejected: User unknown in local recipient table",
        "OK 1732816161 d9443c01a7336-2123bfa5c8csi1234.5 - gsmtp",
    ],
)
def test_other_words_are_kept(text: str) -> None:
    """Words that hold no secret are kept as they are."""
    redactor = Redactor.of_credentials(USER, "correct horse battery")
    assert _said(f"5.7.8 {text}", redactor).reply == text


def test_a_very_short_password_is_masked_as_a_word() -> None:
    """A password of three characters is masked where it stands alone, and not inside of other words."""
    redactor = Redactor.of_credentials("me", "abc")
    assert _said("5.7.8 abc is not in the abcdarium (abc)", redactor).reply == "*** is not in the abcdarium (***)"


def test_without_credentials_nothing_is_masked() -> None:
    """A relay without a sign-in has no secrets, and an empty password masks nothing."""
    assert Redactor.of_credentials("", "").forms == ()
    assert _said("5.7.8 any words", Redactor.of_credentials("me", "")).reply == "any words"


_PARTS = st.text() | st.sampled_from([CODE, CODE[:3], CODE[3:], _b64(CODE), _b64(f"x{CODE}"), _b64(PASSWORD), " ", "é"])


@given(st.lists(_PARTS), st.sampled_from(["2.0.0 ", "5.1.1 ", ""]), st.sampled_from([250, 550]), st.booleans())
def test_the_fast_path_of_a_result_masks_the_same(
    parts: list[str],
    enhanced: str,
    reply_code: int,
    without_a_code: bool,  # noqa: FBT001
) -> None:
    """A result by the fast path has the same words as by the full one."""
    reply = Reply(reply_code, (enhanced + "".join(parts)).encode("utf-8", "surrogatepass"))
    redactor, code = (PLAIN, "") if without_a_code else (NO_SECRETS, CODE)
    with pytest.MonkeyPatch.context() as without:
        without.setattr("otpmail.smtp.replies._is_enhanced", lambda _: False)
        in_full = result("ada@example.org", reply, redactor, code)
    assert result("ada@example.org", reply, redactor, code) == in_full


# Any words.


@given(st.text())
def test_words_are_one_printable_line(text: str) -> None:
    """No control, bidirectional or invisible character and no line end is left, and the length stays."""
    assert clean(text).isprintable()
    assert len(clean(text)) == len(text)
    assert len(cut(text)) <= MAX_TEXT


def test_how_words_are_cleaned() -> None:
    """Line ends and tabs become spaces, what does not print a question mark, and a cut is marked."""
    assert clean("a\r\n\x1b[31mb\0c\u202ed\u200be\u2028f\ud800\t\x9b") == "a  ?[31mb?c?d?e?f? ?"
    assert clean("grüße, 你好") == "grüße, 你好"
    assert cut("x" * 501) == "x" * 497 + "..."
    assert describe(Reply(554, b"\xff\xfe no"), Redactor()) == "554 \ufffd\ufffd no"


@pytest.mark.parametrize(
    "text",
    [
        *(mark * 65_000 for mark in ("4", "<", "A", "%", "\n", " ")),
        *(marks * 21_000 for marks in ("4 ", "=?", "&#4", "=3", "<4>", "\\u0")),
        f"{'A' * 30_000}{CODE}{'A' * 30_000}",
        f"{CODE} " * 9000,
    ],
)
def test_no_reply_takes_long(text: str) -> None:
    """The largest reply that a hostile relay can send is read in milliseconds: nothing is tried twice."""
    reply = Reply(550, text.encode())
    long = Redactor.of_credentials(USER, TOKEN * 10)
    assert seconds_of(lambda: result("ada@example.org", reply, long, CODE)) < 0.5
    assert len(text) > LONG


def test_many_codes_take_no_longer() -> None:
    """A text is decoded once, however many mails with codes are in flight when a relay says its last words."""
    codes = [f"{number:06d}" for number in range(0, 1_000_000, 1000)]
    said: list[str] = []
    assert seconds_of(lambda: said.append(Redactor().line("é1 &#4;<b>" * 200, codes, masks_numbers=True))) < 0.5
    assert not shows(said[0], codes)


def test_nested_codes_take_no_longer() -> None:
    """The text around a mask is read again, as often as a hostile relay has nested the code."""
    said: list[str] = []
    assert seconds_of(lambda: said.append(_said("49" * 300 + "3817" * 300).reply)) < 1
    assert said == [MASK]


@pytest.mark.parametrize("code", ["", "100200"])
@pytest.mark.parametrize(
    "text",
    [
        *("5.7.1 copy of 493817", "2.0.0 queued as A4-93-81-7", "2.0.0 34 39 33 38 31 37", "2.0.0 copy of 49381"),
        *("5.7.1 a &#52;93817", "2.0.0 \u0664\u0669\u0663\u0668\u0661\u0667", "2.0.0 NDkzODE3"),
    ],
)
def test_a_reply_about_a_later_mail_that_quotes_an_earlier_ones_code(text: str, code: str) -> None:
    """The codes of the last mails of a connection are masked as the mail's own is, also in a good reply."""
    redactor = Redactor().remembering((CODE, "555666"))
    assert _said(text, Redactor(), code).reply == text.partition(" ")[2]
    assert _said(text, redactor, code).reply in {MASK, WITHHELD, f"copy of {MASK}", f"queued as A{MASK}"}


@given(st.text("0123456789 -=&#;x<>é", max_size=40), st.sampled_from(["", CODE]))
def test_recent_codes_leave_every_other_reply_as_it_was(text: str, code: str) -> None:
    """A reply in which no earlier code stands is the same with and without them."""
    redactor = Redactor().remembering(("7777777777", "8888888888"))
    reply = _said(f"5.7.1 x{text}y", redactor, code).reply
    assert reply == _said(f"5.7.1 x{text}y", Redactor(), code).reply or "7777777" in text or "8888888" in text


def test_what_shows_encoded_beside_another_code() -> None:
    """A text that shows one of several codes once decoded is withheld, and the others are masked."""
    other = "100200"
    encoded = {code: "".join(f"&#{ord(digit)};" for digit in code) for code in (CODE, other)}
    assert Redactor().line(f"no {other}", [CODE, other]) == f"no {MASK}"
    assert Redactor().line(f"no {other}, nor {encoded[CODE]}", [other, CODE]) == WITHHELD
    assert Redactor().line(f"no {encoded[other]}", [CODE, other]) == WITHHELD


def test_quoted_printable_of_the_standard_library() -> None:
    """A body that a relay quotes as it went over the wire, in quoted-printable with soft line breaks, shows no code."""
    body = quopri.encodestring(f"{'é' * 23} {CODE} {'é' * 10}".encode()).decode()
    assert "=\n" in body
    said = _said("5.7.1 " + body.replace("\n", "\n5.7.1 ")).reply
    assert CODE not in "".join(filter(str.isdecimal, said))
