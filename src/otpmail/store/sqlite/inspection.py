"""Looks into a file with the log that a killed program has left, and changes neither.

SQLite writes such a log back when its last connection closes, also into a file that was only looked at. A connection
that may not write does not, nor does it lock the file; so nobody else may have it meanwhile.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from otpmail.errors import StoreError
from otpmail.store.sqlite.head import IN_USE

_LOCKS, _LOCKED_OCTETS = 0x40000000, 512
"""Where every program that has a file of SQLite open locks at least an octet (SQLite's format, the lock-byte page)."""


def has_log(path: Path) -> bool:
    """Whether a log lies beside the file, and is not empty."""
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and bool(log.stat().st_size)


def takes_locks(path: Path) -> bool:
    """Whether the file system of a file has locks: SQLite may take one that has none for a file that is in use."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _lock(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _lock(descriptor: int) -> bool:
    """Lock a file as its only user; False where another one has it. Raises OSError on a file system without locks."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCKED_OCTETS, _LOCKS, os.SEEK_SET)
    except (BlockingIOError, PermissionError):
        return False
    return True


def inspect(path: Path, descriptor: int, look: Callable[[sqlite3.Connection], None]) -> None:
    """Call `look` with a connection that reads the open file with its log. Raises StoreError if it is in use."""
    with suppress(OSError):  # a file system without locks, as SQLite will say
        if not _lock(descriptor):
            raise StoreError(f"STORE_URL: {path} {IN_USE}")
    address = f"{path.absolute().as_uri()}?mode=ro&vfs=unix-none"
    try:
        connection = sqlite3.connect(address, uri=True, timeout=0, isolation_level=None)
    except sqlite3.Error:  # a SQLite that was built without this
        return
    with closing(connection):
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # its index of the log is in memory then, not in a file
        look(connection)
