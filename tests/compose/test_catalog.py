"""The shipped mails of codes: in each language, for each kind of purpose, complete, and right about the time."""

import html
import re
from pathlib import Path

import pytest

from otpmail.compose.building import Look
from otpmail.compose.catalog import Templates
from otpmail.compose.purposes import ALL_KINDS
from otpmail.compose.templates import Rendered
from otpmail.product import Product

VALUES = {"code": "271828", "reference": "K7QD", "email": "ada@example.org"}
ACME = Product(
    name="Acme",
    url="https://acme.example/start",
    logo_url="",
    color="#0a7c66",
    support_address="help@acme.example",
)
PLAIN = Templates(None, default_locale="en")
BRANDED = Templates(None, default_locale="en", look=Look(ACME))
LOCALES = sorted(PLAIN.by_locale)


def _mail(locale: str, kind: str = "sign_in", *, templates: Templates = BRANDED, seconds: float = 600.0) -> Rendered:
    return templates.render(locale, kind, VALUES, valid_seconds=seconds)


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("locale", LOCALES)
def test_each_shipped_mail_is_complete(locale: str, kind: str) -> None:
    """Code, reference, product and support are in both parts; the code is in the subject too."""
    mail = _mail(locale, kind)
    assert "271828" in mail.subject
    assert "Acme" in mail.subject
    assert "\n" not in mail.subject
    for part in (mail.text, mail.html):
        assert all(shown in part for shown in ("271828", "K7QD", "Acme", "https://acme.example/start"))
        assert "help@acme.example" in part
    assert f'lang="{locale}"' in mail.html


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("locale", LOCALES)
def test_no_hole_is_left(locale: str, kind: str) -> None:
    """No bracket, brace or mark of a phrase is left, with a product or without, and no blank stands twice."""
    for templates in (PLAIN, BRANDED):
        mail = _mail(locale, kind, templates=templates)
        for part in (mail.subject, mail.text):
            assert not re.search(r"[\[\]{}\x1e\x1f$]|%\(|  | [.,。،]|\s$", part.rstrip("\n")), part
        assert mail.html.isascii()
        assert "\x1e" not in mail.html


@pytest.mark.parametrize(
    ("locale", "seconds", "time"),
    [
        ("en", 600.0, " 10 minutes"),
        ("en", 599.9, " 10 minutes"),
        ("en", 569.4, " 9 minutes"),
        ("en", 119.0, " 2 minutes"),
        ("en", 114.0, " 114 seconds"),
        ("en", 57.0, " 1 minute"),
        ("en", 3600.0, " 1 hour"),
        ("en", 1.4, " 1 second"),
        ("en", 7200.0, " 2 hours"),
        ("en", 7169.4, " 119 minutes"),
        ("en", 7170.0, " 2 hours"),
        ("de", 120.0, " 2 Minuten"),
        ("de", 90.0, " 90 Sekunden"),
        ("de", 1.0, " 1 Sekunde"),
        ("es", 120.0, " 2 minutos"),
        ("es", 90.0, " 90 segundos"),
        ("es", 1.0, " 1 segundo"),
        ("fr", 120.0, " 2 minutes"),
        ("fr", 90.0, " 90 secondes"),
        ("fr", 1.0, " 1 seconde"),
    ],
)
def test_each_shipped_mail_says_how_long_its_code_is_valid(locale: str, seconds: float, time: str) -> None:
    """Text and HTML name the validity in whole hours, minutes or seconds, with the plural of the language."""
    mail = _mail(locale, seconds=seconds)
    assert re.search(rf"{time}\b", mail.text)
    assert re.search(rf"{time}\b", mail.html)


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("pt-BR", "pt"),
        ("pt_PT", "pt"),
        ("zh-CN", "zh"),
        ("zh-SG", "zh"),
        ("zh-TW", "zh-hant"),
        ("zh_HK", "zh-hant"),
        ("zh-MO", "zh-hant"),
        ("zh-Hant", "zh-hant"),
        ("zh-Hant-HK", "zh-hant"),
        ("zh-Hans-TW", "zh"),
        ("iw", "he"),
        ("ar-EG", "ar"),
        ("tlh", "en"),
    ],
)
def test_the_language_of_a_locale(asked: str, given: str) -> None:
    """A locale has its language, and a region that writes Traditional Chinese never the Simplified one."""
    assert _mail(asked).html == _mail(given).html


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("locale", LOCALES)
def test_the_direction(locale: str, kind: str) -> None:
    """Arabic and Hebrew run right to left; the code runs left to right in every mail, also within a subject."""
    mail = _mail(locale, kind)
    direction = "rtl" if locale in {"ar", "he"} else "ltr"
    assert f'<html lang="{locale}" dir="{direction}">' in mail.html
    assert f'class="card" lang="{locale}" dir="{direction}"' in mail.html  # webmail drops <html>
    (code,) = re.findall(r"<div ([^>]*)>271828</div>", mail.html)
    assert 'dir="ltr"' in code
    for part in (mail.subject, mail.text):
        # A left-to-right mark before it keeps the letters and digits of a code in their order (UAX 9, W2 and W7).
        assert ("\u200e271828" in part) == (direction == "rtl")


@pytest.mark.parametrize("locale", LOCALES)
def test_a_screen_reader(locale: str) -> None:
    """The code is named character by character, in one element whose text is selected as one."""
    (attributes,) = re.findall(r"<div ([^>]*)>271828</div>", _mail(locale).html)
    assert 'role="group" aria-label="2 7 1 8 2 8"' in attributes
    assert "user-select:all" in attributes


@pytest.mark.parametrize("locale", LOCALES)
def test_a_mail_is_small_and_loads_nothing_but_the_logo(locale: str) -> None:
    """The HTML has no scripts and no styles from elsewhere, is under 30 KB, and only the logo is loaded."""
    logo = "https://acme.example/logo.png?a=1&b=2"
    look = Look(Product(name="Acme", url="https://acme.example/start", logo_url=logo, color="#0a7c66"))
    html = _mail(locale, templates=Templates(None, default_locale=locale, look=look)).html
    assert len(html) < 30_000
    assert max(map(len, html.splitlines())) < 998
    assert re.findall(r'src="([^"]*)"', html) == [logo.replace("&", "&amp;")]
    assert not re.search(r"<script|<link|<form|<iframe|@import|url\(|\son\w+=", html, re.IGNORECASE)


@pytest.mark.parametrize("field", ["name", "url", "logo_url", "support_address"])
def test_what_a_product_has_is_text(field: str) -> None:
    """No part of a product is read as HTML or as a template, whatever the settings let through."""
    evil = "\"><b>'&{{ code }}%(code)s$code{code}[x]"
    product = Product(**{"name": "Acme", "url": "https://a.example", field: evil})
    mail = _mail("en", templates=Templates(None, default_locale="en", look=Look(product)))
    assert "<b>" not in mail.html
    assert "&quot;&gt;&lt;b&gt;&#x27;&amp;{{ code }}%(code)s$code{code}[x]" in mail.html
    if field == "name":
        assert mail.subject == f"271828 is your {evil} sign-in code"


@pytest.mark.parametrize("value", ["a\r\nBcc: eve@example.org", "<b>", "%(code)s", "{{ code }}", "ü"])
def test_what_a_request_has_is_text(value: str) -> None:
    """A reference, an address or a code is shown as it is; line ends are the draft's to refuse."""
    mail = BRANDED.render("en", "login", {**VALUES, "reference": value}, valid_seconds=600.0)
    assert value in mail.text
    shown = value.replace("<b>", "&lt;b&gt;").replace("ü", "&#252;")
    assert shown in mail.html
    assert value not in mail.subject


@pytest.mark.parametrize("locale", LOCALES)
def test_the_address_of_the_support_is_a_link(locale: str) -> None:
    """Readers write to the support by a tap; signs of an address are no parameters of its link (RFC 6068)."""
    look = Look(Product(name="Acme", support_address="help?cc=x&y%z@acme.example"))
    mail = Templates(None, default_locale="en", look=look).render(locale, "login", VALUES, valid_seconds=600.0)
    link = re.search(r'<a [^>]*href="mailto:help%3Fcc%3Dx%26y%25z@acme\.example"[^>]*>([^<]*)</a>', mail.html)
    assert link is not None
    assert link[1] == "help?cc=x&amp;y%z@acme.example"
    line = next(line for line in mail.text.splitlines() if "help?cc" in line)
    assert html.unescape(re.sub("<[^>]*>", "", mail.html)).count(line) == 1


def test_a_phrase_without_the_address_has_no_link(tmp_path: Path) -> None:
    """Words of one's own for the support need not name the address."""
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "words.toml").write_text("support = 'Ask at the desk, or not.'")
    look = Look(Product(support_address="help@acme.example"))
    mail = Templates(tmp_path, default_locale="en", look=look).render("", "login", VALUES, valid_seconds=600.0)
    assert ">Ask at the desk, or not.</p>" in mail.html.replace("\n", "")
    assert "mailto:" not in mail.html


def test_the_reference_can_be_left_out() -> None:
    """Without it neither part names or explains a reference."""
    mail = _mail("en", templates=Templates(None, default_locale="en", look=Look(ACME, shows_reference=False)))
    assert "eference" not in mail.text + mail.html
    assert "K7QD" not in mail.text + mail.html


@pytest.mark.parametrize("locale", LOCALES)
def test_the_last_line_binds_the_code_to_a_domain(locale: str) -> None:
    """The text ends with the line that has a browser give the code to pages of the domain alone."""
    look = Look(ACME, domain="acme.example")
    mail = _mail(locale, templates=Templates(None, default_locale="en", look=look))
    assert mail.text.splitlines()[-1] == "@acme.example #271828"
    assert "@acme.example #" not in mail.html


def test_a_shipped_mail_is_built_when_it_is_asked_for() -> None:
    """A start builds the default language alone, and others with their first mail; `build_all` leaves none out."""
    templates = Templates(None, default_locale="de")
    assert {tag for tag, mails in templates.by_locale.items() if mails} == {"de"}
    assert set(ALL_KINDS) <= set(templates.by_locale["de"])
    assert templates.render("pt-BR", "sign-up", VALUES, valid_seconds=600.0) == _mail("pt", "sign_up", templates=PLAIN)
    assert (
        {"sign_up", "signup"}
        <= set(templates.by_locale["pt"])
        < set(ALL_KINDS) | {"signup", "register", "join"} | {"registration"}
    )
    assert templates.by_locale["pt"]["signup"] is templates.by_locale["pt"]["join"]
    assert templates.by_locale["pt"]["made-up"] is templates.by_locale["pt"]["code"]
    templates.build_all()
    assert all(set(ALL_KINDS) <= set(mails) for mails in templates.by_locale.values())


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Acme", "Acme"),
        ("C++", "C++\u200e"),
        ("(Shop)", "\u200e(Shop)\u200e"),
        ("3M", "\u200e3M"),
        ("\u05e9\u05dc\u05d5\u05dd!", "\u05e9\u05dc\u05d5\u05dd!"),
    ],
)
def test_signs_of_a_latin_name_stay_at_its_ends(name: str, shown: str) -> None:
    """Where text runs to the left, a mark holds the signs of a Latin name at its ends, in each part of the mail."""
    templates = Templates(None, default_locale="en", look=Look(Product(name=name)))
    hebrew, english = _mail("he", templates=templates), _mail("en", templates=templates)
    marked = html.unescape(hebrew.html)
    for part in (hebrew.subject, hebrew.text, marked):
        assert shown in part
    assert f">{shown}" in marked.replace("\n", "")
    assert "\u200e" not in english.subject + english.text


@pytest.mark.parametrize(
    ("locale", "word"), [("fr", " [:?!]"), ("pl", " [wioza] "), ("pt", "e-mail"), ("de", "E-Mail")]
)
def test_no_line_ends_where_it_must_not(locale: str, word: str) -> None:
    """No line of a text begins with a sign, or ends with a preposition of one letter or within "e-mail"."""
    for kind in ALL_KINDS:
        assert re.search(word, _mail(locale, kind).text) is None
