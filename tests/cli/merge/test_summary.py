"""The lines that a merge prints at its end, and its exit code."""

import json
from pathlib import Path

import pytest

from otpmail.cli.merge.summary import Counts, Stop, Summary

DOWN = Stop("no service answers", by_service=True)
INTERRUPTED = Stop("interrupted")


def test_counts() -> None:
    """A mail has a result, which an earlier run may have given, or none."""
    counts = Counts(total=10, relayed=3, relayed_before=2, failed=2, failed_before=1)
    assert (counts.settled, counts.known, counts.unanswered) == (5, 3, 5)


@pytest.mark.parametrize(("stop", "failed", "code"), [(None, 0, 0), (None, 1, 1), (DOWN, 0, 3), (INTERRUPTED, 0, 1)])
def test_exit_codes(stop: Stop | None, failed: int, code: int) -> None:
    """0: all were relayed. 1: some were not, or a person interrupted it. 3: the service or its relay was down."""
    assert Summary(counts=Counts(total=3, failed=failed), stop=stop).exit_code == code


@pytest.mark.parametrize(
    ("summary", "line"),
    [
        (Summary(counts=Counts(10, relayed=10), seconds=0.5), "10 of 10 relayed, 0 failed, in 0.5 s, 20 a second"),
        (
            Summary(counts=Counts(10, relayed=9, failed=1), seconds=0.5, errors=Path("e.csv")),
            "9 of 10 relayed, 1 failed (listed in e.csv), in 0.5 s, 20 a second",
        ),
        (
            Summary(counts=Counts(10, relayed=9, relayed_before=4, failed=1, failed_before=1), seconds=0.5),
            "9 of 10 relayed, 1 failed; sent now: 5, known already: 5, in 0.5 s, 10 a second",
        ),
        (
            Summary(counts=Counts(10, relayed=10, relayed_before=10), seconds=0.5),
            "10 of 10 relayed, 0 failed; sent now: 0, known already: 10, in 0.5 s",
        ),
    ],
)
def test_the_result_is_one_line(summary: Summary, line: str) -> None:
    """Results of an earlier run are counted apart from mails sent now, and the rate counts only the latter."""
    assert summary.lines() == [line]


@pytest.mark.parametrize(
    ("counts", "in_doubt", "line"),
    [
        (Counts(10), 0, "Nothing was sent. Run the same command to try again."),
        (Counts(10, relayed=4, relayed_before=4), 0, "Nothing was sent. Run the same command to try again."),
        (Counts(10, relayed=4), 0, "6 were not sent. Run the same command to go on."),
        (
            Counts(10, relayed=4),
            2,
            (
                "6 have no result: 2 of them may have been sent, the others were not. Run the same command to go on. "
                "Within a day none is sent twice, unless the service is restarted meanwhile."
            ),
        ),
    ],
)
def test_a_merge_that_stopped_says_how_to_go_on(counts: Counts, in_doubt: int, line: str) -> None:
    """The summary says that mails may have been sent only if the service had them and gave no result."""
    assert Summary(counts=counts, stop=DOWN, in_doubt=in_doubt).lines()[1] == line


def test_the_journal_is_named() -> None:
    """If mails were relayed, the summary's last line names the journal, which keeps them from being sent twice."""
    lines = Summary(counts=Counts(1, relayed=1), journal=Path("j")).lines()
    assert lines[-1].startswith("j lists the mails that were relayed; the same command does not send them again.")


def test_json() -> None:
    """A program reads every count, and empty texts where there is no file and no reason."""
    assert json.loads(Summary(counts=Counts(3, relayed=2), in_doubt=1).as_json()) == {
        "mails": 3,
        "relayed": 2,
        "relayed_before": 0,
        "failed": 0,
        "failed_before": 0,
        "unanswered": 1,
        "in_doubt": 1,
        "errors": "",
        "journal": "",
        "stopped": "",
    }
    stopped = json.loads(Summary(counts=Counts(3), stop=DOWN, errors=Path("e"), journal=Path("j")).as_json())
    assert (stopped["errors"], stopped["journal"], stopped["stopped"]) == ("e", "j", "no service answers")


def test_paths_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets in a file's name are printed unchanged."""
    Summary(counts=Counts(1, relayed=1, failed=0), journal=Path("[red]j")).show(as_json=False)
    assert "[red]j lists" in capsys.readouterr().out
