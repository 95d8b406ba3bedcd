"""The command `otpmail merge` before it sends."""

from pathlib import Path

import pytest

from otpmail.cli.merge.command import show_repeated


def test_repeated_rows_are_shown_up_to_ten(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line opens with the file, as other lines about rows do; the rest are counted."""
    show_repeated(Path("people.csv"), ((number, 2) for number in range(3, 18)))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "people.csv: row 3: makes the same mail as row 2; it is sent once"
    assert lines[10:] == ["... and 5 more rows like these"]
