"""A mail merge's batches, its exit codes and what it shows, without a service."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from otpmail.cli.merge import command, progress
from otpmail.cli.merge.command import Counts, Run
from otpmail.cli.merge.csv_source import Row
from otpmail.v1 import mail_pb2


def _row(number: int, size: int = 10) -> Row:
    return Row(number, "ada@example.org", mail_pb2.SendMailRequest(request_id=str(number), text="x" * size))


@pytest.mark.parametrize(("size", "batches"), [(10, [100, 100, 50]), (100_000, [6] * 41 + [4]), (1 << 20, [1] * 250)])
def test_batches_are_bounded(size: int, batches: list[int]) -> None:
    """By number and by size, one mail at least; every row is in one, in order."""
    rows = iter([_row(number, size) for number in range(250)])
    made = []
    while batch := command._batch(rows):
        made.append(batch)
    assert [len(batch) for batch in made] == batches
    assert [row.number for batch in made for row in batch] == list(range(250))


@pytest.mark.parametrize(
    ("stopped", "service", "failed", "code"),
    [("", False, 0, 0), ("", False, 1, 1), ("away", True, 0, 3), ("interrupted", False, 0, 1)],
)
def test_exit_codes(tmp_path: Path, stopped: str, service: bool, failed: int, code: int) -> None:  # noqa: FBT001
    """0: all relayed. 1: some were not, or Ctrl-C. 3: the service, or its relay, could not be had."""
    recipients = SimpleNamespace(total=3)
    run = Run(recipients, "127.0.0.1:1", tmp_path / "e.csv", tmp_path / "journal")  # type: ignore[arg-type]
    run._stopped, run._service_to_blame, run.counts.failed = stopped, service, failed
    assert run.exit_code == code


def test_no_room_to_note_who_got_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends there, and says so: who got it then would get it twice."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Run, "_send", full)
    recipients = SimpleNamespace(total=3, rows=lambda **_: iter(()), request_ids=lambda: iter(()))
    run = Run(recipients, "127.0.0.1:1", tmp_path / "e.csv", tmp_path / "journal")  # type: ignore[arg-type]
    run.go()
    assert (run._stopped, run.exit_code) == ("can't go on: No space left on device", 1)
    assert list(tmp_path.iterdir()) == []


def test_counts() -> None:
    """What is not through has no result."""
    counts = Counts(total=10, relayed=3, failed=1)
    assert (counts.settled, counts.unanswered) == (4, 6)


def test_no_bar_without_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A line at most every five seconds, with the rate since the last."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with progress.display(1000) as show:
        for now, settled in ((101.0, 10), (106.0, 60), (107.0, 70), (112.0, 360)):  # noqa: B007  read by the clock
            show(Counts(total=1000, relayed=settled - 1, failed=1))
    assert capsys.readouterr().err.splitlines() == [
        "60 of 1000 mails, 10 a second, 1 failed",
        "360 of 1000 mails, 50 a second, 1 failed",
    ]


def test_what_was_relayed_before_is_shown_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It counts as through, and not into the rate."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with progress.display(1000, before=500) as show:
        now = 110.0
        show(Counts(total=1000, before=500, relayed=600))
    assert capsys.readouterr().err == "600 of 1000 mails, 10 a second, 500 before this run\n"


def test_only_a_few_copies_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """With the file's name, as other lines about rows; the rest are counted."""
    recipients = SimpleNamespace(file="people.csv", repeated=tuple((number, 2) for number in range(3, 18)))
    command._tell_of_copies(recipients)  # type: ignore[arg-type]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "people.csv: row 3: is the same mail as that of row 2, and is sent once"
    assert lines[10:] == ["... and 5 more rows that are sent once"]
