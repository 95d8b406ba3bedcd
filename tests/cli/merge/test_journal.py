"""The journal of a merge: it keeps results however a run ends, and never touches a file of another kind."""

import fcntl
from pathlib import Path
from typing import BinaryIO

import pytest

from otpmail.cli.merge.csv_source import MergeError
from otpmail.cli.merge.journal import RELAYED, Journal


def _written(path: Path, **ended: str) -> Journal:
    journal = Journal(path)
    with journal:
        for request_id, how in ended.items():
            journal.add(request_id, how)
    return journal


def _relayed(path: Path) -> set[str]:
    return _written(path).relayed


def test_it_keeps_every_result(tmp_path: Path) -> None:
    """Each settled mail has a line, in the order of the runs; a mail that was ever relayed counts as relayed."""
    path = tmp_path / "people.journal"
    _written(path, a=RELAYED, b="FAILED", c="UNCERTAIN")
    _written(path, b=RELAYED, a="FAILED", d="PERMISSION_DENIED")
    header, *lines = path.read_text().splitlines()
    assert header.endswith("How to send all again: otpmail merge --help")
    assert lines == ["a RELAYED", "b FAILED", "c UNCERTAIN", "b RELAYED", "a FAILED", "d PERMISSION_DENIED"]
    assert _relayed(path) == {"a", "b"}


def test_flushed_lines_outlive_the_process(tmp_path: Path) -> None:
    """A flushed line can be read from the file before the run is over."""
    path = tmp_path / "people.journal"
    journal = Journal(path)
    with journal:
        journal.add("a", RELAYED)
        journal.flush()
        assert path.read_text().splitlines()[1:] == ["a RELAYED"]


def test_flushed_lines_outlive_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is brought to the disk once a second and at the end; after each mail would be too slow."""
    now = 100.0
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    journal = Journal(tmp_path / "people.journal", clock=lambda: now)
    with journal:
        for now, times in ((100.5, 0), (101.0, 1), (101.5, 1), (102.1, 2)):  # noqa: B007  read by the clock
            journal.add("a", RELAYED)
            journal.flush()
            assert len(synced) == times
    assert len(synced) == 3


def test_a_line_may_be_cut_off(tmp_path: Path) -> None:
    """A journal that was cut off anywhere loses only the line that was cut; later lines are kept."""
    path = tmp_path / "people.journal"
    _written(path, a1=RELAYED, b2="FAILED", c3=RELAYED)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        known = _relayed(path)
        assert known == {name for name in ("a1", "c3") if f"\n{name} RELAYED".encode() in whole[:length]}
        _written(path, d4=RELAYED)
        assert _relayed(path) == known | {"d4"}


def test_bytes_that_are_not_text_are_skipped(tmp_path: Path) -> None:
    """A machine that crashed may leave such bytes in the file."""
    path = tmp_path / "people.journal"
    _written(path, a=RELAYED)
    path.write_bytes(path.read_bytes() + b"\0\0\xff RELAYED\n\0\0\n\nb RELAYED\n")
    assert {"a", "b"} < _relayed(path)


def test_nothing_settled_and_nothing_left(tmp_path: Path) -> None:
    """A run without results leaves no file; an earlier journal stays unchanged."""
    path = tmp_path / "people.journal"
    _written(path)
    assert not path.exists()
    _written(path, a=RELAYED)
    before = path.read_bytes()
    _written(path)
    assert path.read_bytes() == before


def test_no_other_file_is_written_to(tmp_path: Path) -> None:
    """A file that is not a journal is kept; one that cannot be written stops the merge before any mail is sent."""
    path = tmp_path / "notes.txt"
    path.write_text("precious\n")
    with pytest.raises(MergeError, match=r"^--journal: .*notes\.txt: exists, and is not a journal"), Journal(path):
        pass
    assert path.read_text() == "precious\n"
    with pytest.raises(MergeError, match=r"^--journal: .*: cannot be written: "), Journal(tmp_path / "no" / "journal"):
        pass
    for wrong in (tmp_path, Path("/dev/null")):
        with pytest.raises(MergeError, match=r"^--journal: .*: exists, and is not a regular file"), Journal(wrong):
            pass


def test_two_merges_at_once(tmp_path: Path) -> None:
    """Two merges would send every mail twice, so the second is refused until the first is over."""
    path = tmp_path / "people.journal"
    first = Journal(path)
    with first:
        with pytest.raises(MergeError, match="another merge is using it"), Journal(path):
            pass
        first.add("a", RELAYED)
    assert _relayed(path) == {"a"}


def test_a_journal_that_is_deleted_while_it_is_opened_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another merge without results may delete the file between open and lock; lines written to it would be lost."""
    path = tmp_path / "people.journal"
    lock = fcntl.flock

    def locked_late(file: BinaryIO, how: int) -> None:
        path.unlink()
        lock(file, how)

    monkeypatch.setattr("fcntl.flock", locked_late)
    with pytest.raises(MergeError, match="run the command again"), Journal(path):
        pass
