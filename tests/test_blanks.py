"""Blank characters: those that show nothing."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail.blanks import is_blank, trim

_SHOWN = st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters="\u115f\u1160\u2800\u3164\uffa0"))
_BLANK = st.text(
    st.sampled_from(" \t\r\n\u00a0\u00ad\u034f\u061c\u180e\u2028\u200b\u200d\u202e\u2060\u2069\u3000\u3164\ufe0f\ufeff")
)


@pytest.mark.parametrize("category", ["Zs", "Zl", "Zp", "Cf"])
def test_every_space_and_format_character_is_blank(category: str) -> None:
    """Every character of the categories of spaces and of format characters is blank."""
    found = [character for character in map(chr, range(0x110000)) if unicodedata.category(character) == category]
    assert found
    assert all(map(is_blank, found))


@given(st.characters(categories=["L", "N", "P"], exclude_characters="\u115f\u1160\u3164\uffa0"))
def test_nothing_that_shows_is_blank(character: str) -> None:
    """Letters, numbers and punctuation are not blank."""
    assert not is_blank(character)


@given(_BLANK, _SHOWN, _BLANK, _SHOWN, _BLANK)
def test_trimming_takes_the_ends_alone(before: str, first: str, between: str, last: str, after: str) -> None:
    """Blanks inside of a text stay."""
    text = f"{first}{between}{last}" if first and last else first + last
    assert trim(f"{before}{text}{after}") == text
