"""The words for how long a code is valid."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail.compose.validity import FILE, ValidityWords

ENGLISH = ValidityWords("$n minutes", "$n second", "$n seconds")
NOW = 1_700_000_000.1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (86_400, "1440 minutes"),
        (600, "10 minutes"),
        (599.7, "10 minutes"),
        (570, "10 minutes"),
        (569.4, "9 minutes"),
        (120, "2 minutes"),
        (115, "2 minutes"),
        (114, "114 seconds"),
        (60, "60 seconds"),
        (55, "60 seconds"),
        (54, "54 seconds"),
        (2, "2 seconds"),
        (1.49, "1 second"),
        (0.2, "1 second"),
    ],
)
def test_a_time_is_rounded(seconds: float, words: str) -> None:
    """Two minutes or more are in minutes, the nearest; less is in the nearest seconds, never zero."""
    assert ENGLISH.values(seconds)["valid_for"] == words


@given(st.integers(2, 1440), st.floats(0, 1e6))
def test_a_difference_of_two_times_is_not_a_minute_short(minutes: int, later: float) -> None:
    """A code that is issued for whole minutes is mailed with so many, whatever the clock's reading is."""
    now = NOW + later
    left = (now + minutes * 60) - now
    assert ENGLISH.values(left) == {"valid_for": f"{minutes} minutes", "minutes": str(minutes)}


@given(st.floats(0, 86_400))
def test_no_more_is_promised_than_there_is(left: float) -> None:
    """A mail promises at most half a minute more than what is left in minutes, and at most five seconds in seconds."""
    number, unit = ENGLISH.values(left)["valid_for"].split()
    assert int(number) * (60 if unit == "minutes" else 1) <= max(1.0, left + (30.5 if unit == "minutes" else 5.5))


def test_words_are_read_from_a_file(tmp_path: Path) -> None:
    """The file has a line for each form, in any order, with blank lines between them."""
    (tmp_path / FILE).write_text("\nseconds: $n sekundy\nminutes:  $n minut \n\nsecond: $n sekunda\n", "utf-8")
    assert ValidityWords.read(tmp_path) == ValidityWords("$n minut", "$n sekunda", "$n sekundy")


def test_without_a_file_there_are_symbols(tmp_path: Path) -> None:
    """A template of before has no such file."""
    assert ValidityWords.read(tmp_path) == ValidityWords()
    assert [ValidityWords().values(seconds)["valid_for"] for seconds in (600, 90, 1)] == ["10 min", "90 s", "1 s"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "three lines"),
        ("minutes: $n min\nsecond: $n s", "three lines"),
        ("minutes: $n min\nsecond: $n s\nseconds: $n s\nhours: $n h", "three lines"),
        ("minutes: $n min\nsecond: $n s\nseconds $n s", "three lines"),
        ("minutes: $n min\nsecond: $n s\nseconds: $n s\nseconds: $n s", "three lines"),
        ("minutes: $n min\nsecond: $n s\nseconds: s", r"\$n"),
    ],
)
def test_a_file_that_can_not_be_read_is_an_error(tmp_path: Path, text: str, said: str) -> None:
    """A line that is missing, twice there, unknown or without its number is a ValueError that says so."""
    (tmp_path / FILE).write_text(text, "utf-8")
    with pytest.raises(ValueError, match=f"{FILE} must have .*{said}"):
        ValidityWords.read(tmp_path)
