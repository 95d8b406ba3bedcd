"""A file that is refused stays as it is, to the octet, with the log, the index and the journal beside it."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from otpmail.errors import StoreError
from otpmail.store.sqlite.schema import APPLICATION_ID, SCHEMA
from store.clocks import Clock
from store.conftest import left_in, sqlite_store
from store.entries import entry_of, mail_of
from users import NOBODY, as_another_user, folder_for_all

_KILLED = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    db.execute(statement)
print("done", flush=True)
sys.stdin.read()
os._exit(0)
"""
"""Runs statements, and ends without closing its connection once its input ends."""

Octets = dict[str, bytes]


class Program:
    """Another program with a connection to a file, until `kill`."""

    def __init__(self, path: Path, *statements: str) -> None:
        words = [sys.executable, "-c", _KILLED, str(path), *statements]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"done\n"

    def kill(self) -> None:
        """End it as a kill does."""
        self._process.communicate(timeout=60)


def _octets(directory: Path) -> Octets:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def _killed(path: Path, *statements: str) -> None:
    Program(path, *statements).kill()


_WAL = "PRAGMA journal_mode=WAL"


def _foreign(path: Path) -> None:
    """Leave a database of another program whose tables are in its log alone."""
    path.unlink()
    _killed(path, _WAL, "CREATE TABLE user(name)", "INSERT INTO user VALUES ('ada')")


def _foreign_with_marks(path: Path) -> None:
    path.unlink()
    _killed(path, "PRAGMA application_id=7", _WAL, "CREATE TABLE user(name)")


def _foreign_that_was_ours(path: Path) -> None:
    """Leave a file that only its log gives to another program."""
    _killed(path, "PRAGMA application_id=7", "CREATE TABLE user(name)")


def _newer(path: Path) -> None:
    _killed(path, f"PRAGMA user_version={SCHEMA + 1}")


def _lacking(path: Path) -> None:
    _killed(path, "DROP TABLE request")


def _damaged(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[4096 * 3 : 4096 * 6] = b"\xff" * (4096 * 3)
    path.write_bytes(octets)
    _killed(path, "UPDATE clock SET time = time + 1")


def _foreign_with_journal(path: Path) -> None:
    """Leave a database of another program in the middle of a change, which its next reader would take back."""
    path.unlink()
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("CREATE TABLE user(name)")
        file.executemany("INSERT INTO user VALUES (?)", [("x" * 3000,)] * 100)
    _killed(path, "PRAGMA cache_size=2", "BEGIN", "UPDATE user SET name = name || 'y'")
    assert path.with_name("store.db-journal").stat().st_size


async def _filled(path: Path, clock: Clock) -> None:
    store = sqlite_store(path, clock)
    await store.open()
    await store.mails.accept([entry_of(mail_of(f"m{number}"), content=bytes(3000)) for number in range(20)])
    await store.close()


@pytest.mark.parametrize(
    ("leave", "words"),
    [
        (_foreign, "is the database of another program"),
        (_foreign_with_marks, "is the database of another program"),
        (_foreign_that_was_ours, "is the database of another program"),
        (_foreign_with_journal, "is the database of another program"),
        (_newer, f"was written by a newer otpmail (schema {SCHEMA + 1}; this one knows {SCHEMA})"),
        (_lacking, "is damaged; restore a backup"),
        (_damaged, "is damaged; restore a backup"),
    ],
)
async def test_a_log_that_a_killed_program_has_left(
    tmp_path: Path, clock: Clock, leave: Callable[[Path], None], words: str
) -> None:
    """Neither a refused file nor what lies beside it changes, also where the log alone says why it is refused."""
    await _filled(path := tmp_path / "store.db", clock)
    leave(path)
    before = _octets(tmp_path)
    assert len(before) > 1
    for _ in range(2):
        with pytest.raises(StoreError) as caught:
            await sqlite_store(path, clock).open()
        assert str(caught.value).startswith(f"STORE_URL: {path} {words}")
        assert _octets(tmp_path) == before


@pytest.mark.parametrize("mark", [APPLICATION_ID, 7])
@pytest.mark.parametrize("mode", ["NORMAL", "EXCLUSIVE"])
async def test_a_file_that_another_program_has(tmp_path: Path, clock: Clock, mode: str, mark: int) -> None:
    """A file that is in use, by whatever program, is refused and stays, and that program goes on."""
    path = tmp_path / "store.db"
    table = f"CREATE TABLE user{mark}(name)"
    other = Program(
        path, f"PRAGMA application_id={mark}", f"PRAGMA locking_mode={mode}", _WAL, table, "BEGIN IMMEDIATE"
    )
    before = _octets(tmp_path)
    with pytest.raises(StoreError) as caught:
        await sqlite_store(path, clock).open()
    assert str(caught.value).startswith(f"STORE_URL: {path} is ")
    assert _octets(tmp_path) == before
    other.kill()


@pytest.mark.parametrize("what", ["directory", "file"])
async def test_a_place_that_can_only_be_read(clock: Clock, what: str) -> None:
    """A directory, or a file with a log, that may not be written is refused, and all in it stays."""
    with folder_for_all() as folder:
        await _filled(path := folder / "store.db", clock)
        if what == "file":
            _killed(path, "UPDATE clock SET time = time + 1")
            path.chmod(0o444)
        elif os.geteuid() == 0:
            os.chown(path, NOBODY, -1)
        folder.chmod(0o555)
        before = _octets(folder)
        with as_another_user(), pytest.raises(StoreError) as caught:
            await sqlite_store(path, clock).open()
        assert str(caught.value).startswith(f"STORE_URL: {path} can't be ")
        assert _octets(folder) == before


async def test_our_own_log_is_read(tmp_path: Path, clock: Clock) -> None:
    """A file of ours with the log of a killed process opens with all that is in either."""
    await _filled(path := tmp_path / "store.db", clock)
    _killed(path, "DELETE FROM mail WHERE id > 'm1'")
    store = sqlite_store(path, clock)
    await store.open()
    assert sorted(entry.mail.id for entry in await left_in(store)) == ["m0", "m1"]
    await store.close()
