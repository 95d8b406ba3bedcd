"""Plurals and times in words, held to what CLDR says of each shipped language."""

from pathlib import Path

import pytest
from babel import Locale
from babel.units import format_unit

from otpmail.compose.catalog import SHIPPED, Templates
from otpmail.compose.plurals import rule_of
from otpmail.errors import SettingsError

MAILS = Templates(None, default_locale="en").by_locale
LOCALES = sorted(MAILS)
OTHERS = """
da nl nb sv fi tr hu el th id ms et bg ca eu gl sq ka az kk uz ky mn ne mr ta te ml ur ps sw af eo lb
ru uk be sr hr bs cs sk sl hsb dsb lt lv ro ga cy mt mk is fil ceb
hi bn fa gu kn pa as si am ti zu hy ln mg tg yue my km lo jv su yo ig wo bo dz to
"""
"""Languages that are not shipped, whose words a user may add."""

IN_A_SENTENCE = {
    ("pl", "one"): "the accusative, minutę for minuta",
    ("ar", "one"): "with the word for one",
    ("ar", "two"): "the genitive, دقيقتين for دقيقتان",
}
"""Forms that differ from those of CLDR, which stand alone and not in a sentence."""

# Seconds below two minutes but near none, whole minutes below two hours but no hour, then hours, as a mail has them.
TIMES = [
    *(("second", n, n) for n in (*range(1, 55), *range(61, 115))),
    *(("minute", n, 60 * n) for n in (*range(1, 60), *range(61, 120))),
    *(("hour", n, 3600 * n) for n in range(1, 25)),
]


def _in_cldr(locale: str) -> Locale:
    return Locale.parse(locale, sep="-")


@pytest.mark.parametrize("locale", [*LOCALES, *OTHERS.split()])
def test_the_form_of_a_number(locale: str) -> None:
    """A number has the category of CLDR, and the words of a language have all categories of whole numbers there."""
    rule, categories = rule_of(locale.partition("-")[0])
    form_of = _in_cldr(locale).plural_form
    assert [rule(n) for n in range(1500)] == [form_of(n) for n in range(1500)]
    assert {form_of(n) for n in range(1500)} == set(categories)


@pytest.mark.parametrize("locale", LOCALES)
def test_a_time_in_words(locale: str) -> None:
    """Each time that a mail may have is in the words of CLDR, but for forms that a sentence bends."""
    times = MAILS[locale]["code"].times
    rule, _ = rule_of(locale.partition("-")[0])
    for unit, number, seconds in TIMES:
        words = times.values(seconds)["valid_for"]
        expected = format_unit(number, f"duration-{unit}", length="long", locale=_in_cldr(locale))
        if (locale, rule(number)) in IN_A_SENTENCE:
            assert words != expected
        elif locale == "he" and words != expected:
            assert number in {1, 2}, (words, expected)
        else:
            assert _plain(words) == _plain(expected)


def _plain(words: str) -> str:
    """Words without blanks, marks of direction and the vowels that Arabic may leave out."""
    return "".join(c for c in words if not c.isspace() and c not in "\u200e\u200f\u064b\u064d")


def test_words_of_a_language_that_is_not_shipped(tmp_path: Path) -> None:
    """Russian words need the forms of Russian: the first that is missing is named, and each number has its own."""
    english = SHIPPED.joinpath("en.toml").read_text("utf-8")
    (tmp_path / "ru").mkdir()
    file = tmp_path / "ru" / "words.toml"
    file.write_text(english)
    with pytest.raises(SettingsError, match=r"^OTP_TEMPLATES_DIR: ru/words.toml: lacks hour.few, a text in quotes$"):
        Templates(tmp_path, default_locale="ru")
    forms = 'one = "{n} one"\nfew = "{n} few"\nmany = "{n} many"\n'
    start, end = english.index("[hour]"), english.index("[code]")
    units = "".join(f"[{unit}]\n{forms}" for unit in ("hour", "minute", "second"))
    file.write_text(english[:start] + units + english[end:])
    times = Templates(tmp_path, default_locale="ru").by_locale["ru"]["code"].times
    assert [times.values(n * 60.0)["valid_for"] for n in (2, 5, 11, 21)] == ["2 few", "5 many", "11 many", "21 one"]
