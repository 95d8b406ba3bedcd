"""How far a merge has come, where there is no terminal. tests/integration/test_merge.py has one."""

import pytest

from otpmail.cli.merge.progress import display
from otpmail.cli.merge.summary import Counts


class Clock:
    """A clock that a test sets, in seconds."""

    now = 100.0

    def __call__(self) -> float:
        """The time that was set."""
        return self.now


def test_a_line_every_five_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal there is a line at most every five seconds, with the rate since the last one."""
    clock = Clock()
    with display(1000, clock=clock) as show:
        for clock.now, settled in ((101.0, 10), (106.0, 60), (107.0, 70), (112.0, 360)):
            show(Counts(total=1000, relayed=settled - 1, failed=1))
    assert capsys.readouterr().err.splitlines() == [
        "60 of 1000 mails, 10 a second, 1 failed",
        "360 of 1000 mails, 50 a second, 1 failed",
    ]


def test_known_results_are_shown_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """A result that the journal had at the start counts as settled, but not for the rate."""
    clock = Clock()
    with display(1000, settled=500, clock=clock) as show:
        clock.now = 110.0
        show(Counts(total=1000, relayed=600, relayed_before=500))
    assert capsys.readouterr().err == "600 of 1000 mails, 10 a second, 500 known already\n"
