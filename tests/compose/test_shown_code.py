"""How a mail shows a code: a number whole, letters in groups, each character read by itself."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail.compose.building import Look
from otpmail.compose.catalog import Templates
from otpmail.compose.purposes import ALL_KINDS
from otpmail.compose.shown_code import BARE, SPELLED, code_values
from otpmail.model import ALPHABET
from otpmail.otp.codes import normalize
from otpmail.product import Product

VALUES = {"code": "7F3KQ2ABXTMC", "reference": "K7QD", "email": "ada@example.org"}
SHOWN = "7F3K-Q2AB-XTMC"
MAILS = Templates(None, default_locale="en", look=Look(Product(name="Acme"), domain="acme.example"))


@pytest.mark.parametrize(
    ("code", "shown", "spelled"),
    [
        ("271828", "271828", "2 7 1 8 2 8"),
        ("2718281828", "2718281828", "2 7 1 8 2 8 1 8 2 8"),
        ("7F3K", "7F3K", "7 F 3 K"),
        ("7F3KQ", "7F3-KQ", "7 F 3, K Q"),
        ("7F3KQ2AB", "7F3K-Q2AB", "7 F 3 K, Q 2 A B"),
        ("7F3KQ2ABX", "7F3-KQ2-ABX", "7 F 3, K Q 2, A B X"),
        ("7F3KQ2ABXT", "7F3K-Q2A-BXT", "7 F 3 K, Q 2 A, B X T"),
        ("7F3KQ2ABXTMC", SHOWN, "7 F 3 K, Q 2 A B, X T M C"),
    ],
)
def test_a_code_as_it_is_shown_and_read(code: str, shown: str, spelled: str) -> None:
    """Digits stay whole, letters stand in groups of four at most, and a screen reader pauses between the groups."""
    assert code_values(code) == {"code": shown, BARE: code, SPELLED: spelled}


def test_the_fast_path_has_the_same_values(tmp_path: Path) -> None:
    """A number has the same values in a mail as `code_values` gives."""
    folder = tmp_path / "en"
    folder.mkdir()
    (folder / "subject.txt.j2").write_text("{{ code }}|{{ spelled_code }}", "utf-8")
    (folder / "body.txt.j2").write_text("{{ code }}", "utf-8")
    templates = Templates(tmp_path, default_locale="en", look=Look(domain="acme.example"))
    for code in ("271828", VALUES["code"]):
        mail, values = templates.render("en", "login", {**VALUES, "code": code}, valid_seconds=60.0), code_values(code)
        assert mail.subject == f"{values['code']}|{values[SPELLED]}"
        assert mail.text == f"{values['code']}\n\n@acme.example #{values[BARE]}\n"


@given(code=st.text(ALPHABET, min_size=4, max_size=12))
def test_a_shown_code_is_read_as_the_code(code: str) -> None:
    """A code copied from a mail, in any case, is the code once the check has normalized it."""
    assert normalize(code_values(code)["code"].lower()).upper() == code


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("locale", sorted(MAILS.by_locale))
def test_each_shipped_mail_shows_groups(locale: str, kind: str) -> None:
    """Subject, text and HTML of each language show the groups; the line for browsers has the code without dashes."""
    mail = MAILS.render(locale, kind, VALUES, valid_seconds=600.0)
    mark = "\u200e" if locale in {"ar", "he"} else ""
    assert f"{mark}{SHOWN}" in mail.subject
    text, _, last = mail.text.rstrip().rpartition("\n")
    assert f"\n{mark}{SHOWN}\n" in text
    assert last == "@acme.example #7F3KQ2ABXTMC"
    (attributes,) = re.findall(f"<div ([^>]*)>{SHOWN}</div>", mail.html)
    assert 'dir="ltr"' in attributes
    assert 'aria-label="7 F 3 K, Q 2 A B, X T M C"' in attributes
    for part in (mail.subject, text, mail.html):
        assert VALUES["code"] not in part


@pytest.mark.parametrize("suffix", ["", ".j2"])
def test_templates_of_ones_own_show_groups(tmp_path: Path, suffix: str) -> None:
    """`$code` and `{{ code }}` have them too, also in a template that each mail renders anew."""
    code = "{{ code }}{% if variables.name %}, {{ variables.name }}{% endif %}" if suffix else "$code, $name"
    folder = tmp_path / "en"
    folder.mkdir()
    (folder / f"subject.txt{suffix}").write_text("s", "utf-8")
    (folder / f"body.txt{suffix}").write_text(code, "utf-8")
    templates = Templates(tmp_path, default_locale="en", look=Look(domain="acme.example"))
    mail = templates.render("en", "login", {**VALUES, "name": "Ada"}, valid_seconds=600.0)
    assert mail.text == f"{SHOWN}, Ada\n\n@acme.example #7F3KQ2ABXTMC\n"
