"""Files that a SQLite store refuses to open, each in one line that names the setting and the file."""

import errno
import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from otpmail.errors import StoreError
from otpmail.store.base import Accepted
from otpmail.store.sqlite.database import Database
from otpmail.store.sqlite.schema import SCHEMA, TABLES
from store.clocks import Clock
from store.conftest import sqlite_store
from store.entries import entry_of, mail_of


async def _filled(path: Path, clock: Clock) -> None:
    """Write a store with open mails."""
    store = sqlite_store(path, clock)
    await store.open()
    await store.mails.accept([entry_of(mail_of(f"m{number}"), content=bytes(3000)) for number in range(20)])
    await store.close()


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _no_directory(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()


def _text(path: Path) -> None:
    path.write_text("this is a text, and a long one at that\n" * 100)


def _another(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE user(name)")
    other.close()


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as ours:
        ours.execute(f"PRAGMA user_version={SCHEMA + 1}")
    ours.close()


def _damaged(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[4096 * 3 : 4096 * 6] = b"\xff" * (4096 * 3)
    path.write_bytes(octets)


def _short(path: Path) -> None:
    path.write_text("a")  # which SQLite takes for an empty database


def _cut(path: Path) -> None:
    os.truncate(path, 60)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _pipe_beside(path: Path) -> None:
    os.mkfifo(path.with_name(f"{path.name}-journal"))


def _directory_beside(path: Path) -> None:
    path.with_name(f"{path.name}-wal").mkdir()


def _version_zero(path: Path) -> None:
    with sqlite3.connect(path) as ours:
        ours.execute("PRAGMA user_version=0")
    ours.close()


def _after(statement: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with sqlite3.connect(path) as ours:
            ours.execute(statement)
        ours.close()

    return spoil


def _damaged_head(path: Path) -> None:
    path.write_bytes(b"\0" * 4096 + path.read_bytes()[4096:])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_directory, "is a directory; STORE_URL names a file"),
        (_no_directory, "can't be made: its directory does not exist"),
        (_text, "is not a SQLite database"),
        (_another, "is the database of another program"),
        (_newer, f"was written by a newer otpmail (schema {SCHEMA + 1}; this one knows {SCHEMA})"),
        (_damaged, "is damaged; restore a backup, or move it away"),
        (_damaged_head, "is not a SQLite database"),
        (_short, "is not a SQLite database"),
        (_cut, "is damaged; restore a backup, or move it away"),
        (_pipe, "is a device or a pipe; STORE_URL names a file"),
        (_pipe_beside, "can't be opened: store.db-journal beside it is no file"),
        (_directory_beside, "can't be opened: store.db-wal beside it is no file"),
        (_version_zero, "is damaged; restore a backup, or move it away"),
        (_after("UPDATE mail SET priority = 77"), "is damaged; restore a backup, or move it away"),
    ],
)
async def test_a_file_that_is_no_store(tmp_path: Path, clock: Clock, spoil: Callable[[Path], None], words: str) -> None:
    """The error is one line that opens with the setting and names the file, which is left as it was."""
    path = tmp_path / "state" / "store.db"
    path.parent.mkdir()
    await _filled(path, clock)
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError) as caught:
        await sqlite_store(path, clock).open()
    assert str(caught.value).startswith(f"STORE_URL: {path} {words}")
    assert "\n" not in str(caught.value)
    assert (path.read_bytes() if path.is_file() else None) == before


@pytest.mark.parametrize("statement", [*(f"DROP TABLE {table}" for table in TABLES), "DELETE FROM clock"])
async def test_a_store_that_lacks_a_part(tmp_path: Path, clock: Clock, statement: str) -> None:
    """A file of ours without a table or a row that each store has is named as damaged, in one line."""
    await _filled(path := tmp_path / "store.db", clock)
    _after(statement)(path)
    with pytest.raises(StoreError, match=r"\ASTORE_URL: \S+ is damaged; restore a backup, or move it away .*\Z"):
        await sqlite_store(path, clock).open()


async def test_a_sqlite_that_is_too_old(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SQLite without a statement that the store uses is refused at the start, before a file is made."""
    monkeypatch.setattr("sqlite3.sqlite_version_info", (3, 32, 3))
    with pytest.raises(StoreError, match=r"STORE_URL: needs SQLite 3\.33 or later; this Python has 3\."):
        await sqlite_store(tmp_path / "store.db", clock).open()
    assert [entry.name for entry in os.scandir(tmp_path)] == []


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR_LOCK, sqlite3.SQLITE_PROTOCOL])
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Where the system has no locks the start is refused with one line that says so, whatever SQLite calls it.

    SQLite says of ENOLCK that the database is locked (`sqliteErrorFromPosixError`).
    """
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = code
    connections: list[sqlite3.Connection] = []

    class Lockless(sqlite3.Connection):
        def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
            if "locking_mode" in statement:
                connections.append(self)
            elif "journal_mode" in statement:  # the first that needs a lock
                raise error
            return super().execute(statement, *arguments)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("sqlite3.connect", partial(sqlite3.connect, factory=Lockless))
    monkeypatch.setattr("fcntl.lockf", refuse)
    with pytest.raises(StoreError, match=r"\ASTORE_URL: \S+ can't be [^\n]*its file system has no locks[^\n]*\Z"):
        Database(tmp_path / "store.db").open()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connections[0].execute("PRAGMA user_version")


async def test_a_second_process_is_refused(tmp_path: Path, clock: Clock) -> None:
    """A store that is open refuses a second one, from its opening to its close, and goes on itself."""
    first, second = (sqlite_store(tmp_path / "store.db", clock) for _ in range(2))
    await first.open()
    for _ in range(2):
        with pytest.raises(StoreError, match="is in use by another process; one file serves one otpmail"):
            await second.open()
        assert await first.mails.accept([entry_of(mail_of(f"m{_}"))]) == [Accepted()]
    await first.close()
    third = sqlite_store(tmp_path / "store.db", clock)
    await third.open()
    await third.close()


async def test_the_file_is_its_users_alone(tmp_path: Path, clock: Clock) -> None:
    """Nobody else may read the file, nor the log beside it."""
    store = sqlite_store(tmp_path / "store.db", clock)
    await store.open()
    await store.mails.accept([entry_of(mail_of())])
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in os.scandir(tmp_path)}
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600}
    await store.close()
    assert [entry.name for entry in os.scandir(tmp_path)] == ["store.db"]
