"""Says whose a file is before SQLite opens it: that alone would change a file of another program.

SQLite writes back the log that a killed program has left, and takes a file of one octet for an empty one.
"""

import os
import stat
import struct
from pathlib import Path

from otpmail.store.sqlite.schema import APPLICATION_ID, SCHEMA, schema_of

_MAGIC = b"SQLite format 3\0"
_HEAD = struct.Struct(">16sH42xi4xi28x")  # magic, octets of a page, user_version, application_id (SQLite's format, 1.3)

DAMAGED = "is damaged; restore a backup, or move it away to begin with an empty store"
NO_DATABASE = "is not a SQLite database"
FOREIGN = "is the database of another program"
IN_USE = "is in use by another process; one file serves one otpmail"
NO_LOCKS = "can't be locked: its file system has no locks"

_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_JOURNAL_HEAD = struct.Struct(">8s8xI")  # mark, the file's pages before the transaction (SQLite's format, 3)


def look_at(path: Path, descriptor: int) -> str:
    """Return why the open file is no store, as the end of a sentence; empty for one that is new or may be a store."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        return "is a device or a pipe; STORE_URL names a file"
    journal, log = (path.with_name(f"{path.name}{end}") for end in ("-journal", "-wal"))
    for beside in (journal, log):
        if beside.exists() and not beside.is_file():  # SQLite would wait for ever for the writer of a pipe
            return f"can't be opened: {beside.name} beside it is no file"
    if not found.st_size or _pages_before(journal) == 0:  # SQLite takes back its first transaction
        return ""
    return _judged(os.pread(descriptor, _HEAD.size, 0), found.st_size)


def _pages_before(journal: Path) -> int | None:
    """Return how many pages the file had before a transaction that a crash left half; None without such a one."""
    try:
        with journal.open("rb") as file:
            head = file.read(_JOURNAL_HEAD.size)
    except FileNotFoundError:
        return None
    if len(head) < _JOURNAL_HEAD.size or not head.startswith(_JOURNAL_MAGIC):
        return None
    pages: int = _JOURNAL_HEAD.unpack(head)[1]
    return pages


def _judged(head: bytes, octets: int) -> str:
    """Return why a file of so many octets that begins with these is no store; empty for one that may be."""
    if not head.startswith(_MAGIC):
        return NO_DATABASE
    if len(head) < _HEAD.size:
        return DAMAGED
    _, page, version, application = _HEAD.unpack(head)
    if not application and octets <= (page if page > 1 else 1 << 16):
        return ""  # the first page has no marks until the log is first written back
    return whose(application, version)


def whose(application: int, user_version: int) -> str:
    """Return why a file with these marks is no store that this program knows; empty for one that is."""
    if application != APPLICATION_ID:
        return FOREIGN
    schema = schema_of(user_version)
    if schema > SCHEMA:
        return f"was written by a newer otpmail (schema {schema}; this one knows {SCHEMA})"
    return "" if schema > 0 else DAMAGED
