"""The shipped mails of codes: in each language, for each kind of purpose, complete, and right about the time."""

import re

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
        ("en", 599.9, " 9 minutes"),
        ("en", 119.0, " 119 seconds"),
        ("en", 1.5, " 1 second"),
        ("en", 7200.0, " 2 hours"),
        ("en", 7199.0, " 119 minutes"),
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
    """Both parts say it in whole hours, minutes or seconds, with the plural of the language."""
    mail = _mail(locale, seconds=seconds)
    assert re.search(rf"{time}\b", mail.text)
    assert re.search(rf"{time}\b", mail.html)
