"""Opens, checks and closes a store's file. All of it runs in the writer thread.

One connection holds an exclusive lock for as long as the process lives, so a second process is refused. No other
connection can meet SQLite's fault in resetting its write-ahead log (up to 3.51.2).
"""

import errno
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import TypeVar

from otpmail.errors import StoreError
from otpmail.store.sqlite.head import DAMAGED, IN_USE, NO_DATABASE, NO_LOCKS, look_at, whose
from otpmail.store.sqlite.inspection import has_log, inspect, takes_locks
from otpmail.store.sqlite.migration import commit, create, migrate
from otpmail.store.sqlite.schema import APPLICATION_ID, SCHEMA, STEPS, TABLES, UNDER_WAY

_log = logging.getLogger("otpmail")

T = TypeVar("T")

_OLDEST = (3, 33)  # UPDATE with FROM
_WAL_OCTETS = 4 << 20  # the write-ahead log is cut to this size after a checkpoint
_MARGIN = 16 << 20  # of free octets on the disk, for the log and for settlements
_CHECK_SECONDS = 0.5
_CHECK_STEPS = 100_000  # of SQLite's machine between two looks at the clock
_VACUUM_PAGES = 256  # 2 ms
_SPARE_PAGES = 512  # free pages that stay, so that a file does not shrink and grow all the time
_PROBE_OCTETS = 64 << 10
_STATEMENTS = 256  # that SQLite has parsed: a dozen, each for ten numbers of rows (`bulk`), and others

_ENVIRONMENT = frozenset(
    {
        *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY),
        *(sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN),
        *(sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOLFS),
    }
)

_WORDS = {
    sqlite3.SQLITE_BUSY: IN_USE,
    sqlite3.SQLITE_LOCKED: IN_USE,
    sqlite3.SQLITE_READONLY: "can't be written",
    sqlite3.SQLITE_PERM: "can't be written",
    sqlite3.SQLITE_CANTOPEN: "can't be opened or written, or a file beside it can't",
    sqlite3.SQLITE_NOTADB: NO_DATABASE,
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_ERROR: DAMAGED,  # a table or a column that is missing
    sqlite3.SQLITE_FULL: "has no room: the disk is full",
    sqlite3.SQLITE_IOERR: "can't be read or written: the disk failed, or its file system has no locks",
    sqlite3.SQLITE_PROTOCOL: NO_LOCKS,
}


def free_octets(path: Path) -> int:
    """Return how many octets the file system of `path` has left for this user."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


class Database:
    """The file of a store at `path`, open after `open`.

    New mails need `margin` octets of free disk, so that settlements always find room. `most_pages` limits the file.
    `functions` are called by the steps of the schema (`schema.step_functions`).
    """

    def __init__(
        self,
        path: Path,
        *,
        margin: int = _MARGIN,
        most_pages: int | None = None,
        free: Callable[[Path], int] = free_octets,
        check_seconds: float = _CHECK_SECONDS,
    ) -> None:
        self.path = path
        self._margin = margin
        self._most_pages = most_pages
        self._free = free
        self._check_seconds = check_seconds
        self._identity = (0, 0)
        self._is_checked = False
        self.functions: Mapping[str, Callable[[bytes], bytes | int]] = {}
        self.connection: sqlite3.Connection

    def __repr__(self) -> str:
        return f"<Database {self.path}>"

    def open(self) -> None:
        """Make the file if it is missing, lock it and check it. Raises StoreError; a file that is refused stays."""
        if sqlite3.sqlite_version_info < _OLDEST:
            oldest = ".".join(map(str, _OLDEST))
            raise StoreError(f"STORE_URL: needs SQLite {oldest} or later; this Python has {sqlite3.sqlite_version}")
        try:
            self._make_file()
            self.connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, cached_statements=_STATEMENTS)
        except OSError as error:
            raise StoreError(f"STORE_URL: {self.path} {_words_of_system(error)}") from None
        except sqlite3.Error as error:
            raise StoreError(self.describe(error)) from None
        try:
            self._prepare()
        except sqlite3.Error as error:
            self.connection.close()
            if _primary(error) == sqlite3.SQLITE_BUSY and not takes_locks(self.path):
                raise StoreError(f"STORE_URL: {self.path} {NO_LOCKS}") from None
            raise StoreError(self.describe(error)) from None
        except StoreError:
            self.connection.close()
            raise

    def describe(self, error: sqlite3.Error) -> str:
        """Return one line for a person about an error of SQLite."""
        words = _WORDS.get(_primary(error), "can't be used")
        return f"STORE_URL: {self.path} {words} ({error})"

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` reads of the file at the start. Raises StoreError where that is not what a store holds."""
        try:
            return work(self.connection)
        except sqlite3.Error as error:
            raise StoreError(self.describe(error)) from error
        except (LookupError, TypeError, ValueError) as error:  # a row is missing, or has what no otpmail has written
            raise StoreError(self._damaged(error)) from error

    def has_room(self, octets: int = 0) -> bool:
        """Whether the disk has room for `octets` more, beside the margin."""
        try:
            free = self._free(self.path.parent)
        except OSError:
            return False
        return free >= self._margin + 2 * octets  # once in the log, once in the file

    def is_there(self) -> bool:
        """Whether the path still names the open file: writing to one that was removed would keep nothing."""
        try:
            found = self.path.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def probe(self) -> None:
        """Write, and take it back, so that SQLite's error shows where nothing can be written."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            row = (-1, "", 0, 0.0, bytes(_PROBE_OCTETS))
            self.connection.execute("INSERT INTO mail VALUES (?, ?, ?, ?, ?)", row)
        finally:
            self.roll_back()

    def roll_back(self) -> None:
        """End a transaction without a trace. After some errors SQLite has done so by itself."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def vacuum_slice(self) -> bool:
        """Give some free pages back to the file system; returns whether there may be more."""
        ((free,),) = self.connection.execute("PRAGMA freelist_count").fetchall()
        if free <= _SPARE_PAGES:
            return False
        # `execute` would stop after the first page.
        self.connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
        return True

    def checkpoint(self) -> None:
        """Write the log back into the file, which only then becomes shorter."""
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Write the log back into the file, and unlock it."""
        self.connection.close()

    def _damaged(self, found: object) -> str:
        return f"STORE_URL: {self.path} {DAMAGED} ({_one_line(found)})"

    def _make_file(self) -> None:
        """Make the file readable for nobody else, which SQLite does for the files beside it as well."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            found = os.fstat(descriptor)
            self._identity = found.st_dev, found.st_ino
            problem = look_at(self.path, descriptor)
            if not problem and found.st_size and has_log(self.path):
                inspect(self.path, descriptor, self._look_and_check)
                self._is_checked = True
        finally:
            os.close(descriptor)  # before any lock is taken: this would release them all
        if problem:
            raise StoreError(f"STORE_URL: {self.path} {problem}")

    def _prepare(self) -> None:
        connection = self.connection
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # before WAL, or another process can open the file too
        version = self._look(connection)
        if not version:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # before the first table
        elif not self._is_checked:
            self._check(connection, version)
        connection.execute("PRAGMA journal_mode=WAL")
        for pragma in (
            "synchronous=FULL",
            f"journal_size_limit={_WAL_OCTETS}",
            "secure_delete=FAST",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")
        if self._most_pages is not None:
            connection.execute(f"PRAGMA max_page_count={self._most_pages}")
        for name, function in self.functions.items():
            connection.create_function(name, 1, function, deterministic=True)
        if version not in {0, SCHEMA}:
            schema = version % UNDER_WAY
            text = "the store's file is brought from schema %d to %d; a large one takes some seconds"
            _log.info(text, schema, SCHEMA, extra={"event": "store-migrating", "fields": {"schema": schema}})
            migrate(connection, STEPS, version, UNDER_WAY)
        with commit(connection):  # takes the lock, also for a file that is only read meanwhile
            if not version:
                create(connection, STEPS)
                connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={SCHEMA}")
            connection.execute("UPDATE clock SET time = time")  # shows whether the file can be written

    def _look_and_check(self, connection: sqlite3.Connection) -> None:
        if version := self._look(connection):
            self._check(connection, version)

    def _look(self, connection: sqlite3.Connection) -> int:
        """Return the user_version, 0 of an empty file. Raises StoreError for a file that is not ours."""
        [application] = connection.execute("PRAGMA application_id").fetchone()
        [version] = connection.execute("PRAGMA user_version").fetchone()
        [tables] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not (application or version or tables):
            return 0
        if problem := whose(application, version):
            raise StoreError(f"STORE_URL: {self.path} {problem}")
        return int(version)

    def _check(self, connection: sqlite3.Connection, version: int) -> None:
        """Look for damage, for half a second at most. Raises StoreError."""
        if version == SCHEMA:
            for table in TABLES:  # one that is missing shows now, and not in the middle of the work
                connection.execute(f"SELECT 1 FROM {table} LIMIT 0")  # noqa: S608  our names
        ends = monotonic() + self._check_seconds
        connection.set_progress_handler(lambda: monotonic() > ends, _CHECK_STEPS)
        try:
            with closing(connection.execute("PRAGMA quick_check(1)")) as found:
                [result] = found.fetchone()
        except sqlite3.Error as error:
            if _primary(error) == sqlite3.SQLITE_INTERRUPT:  # a large file: what it met so far is good
                return
            raise
        finally:
            connection.set_progress_handler(None, 0)
        if result != "ok":
            raise StoreError(self._damaged(result))


def is_environmental(error: Exception) -> bool:
    """Whether an error is about the disk or the file, and not about the one change that met it."""
    return isinstance(error, sqlite3.Error) and _primary(error) in _ENVIRONMENT


def is_full(error: sqlite3.Error) -> bool:
    """Whether there is no room on the disk, or none in the file."""
    return _primary(error) == sqlite3.SQLITE_FULL


def _primary(error: sqlite3.Error) -> int:
    """SQLite's result code without its extension; 0 for an error of Python's module."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _words_of_system(error: OSError) -> str:
    match error.errno:
        case errno.EISDIR:
            return "is a directory; STORE_URL names a file"
        case errno.ENOENT | errno.ENOTDIR:
            return "can't be made: its directory does not exist"
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return f"can't be written ({error.strerror})"
    return f"can't be opened ({error.strerror})"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:200]
