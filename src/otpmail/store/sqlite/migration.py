"""Brings a file from an earlier schema to the present one, in commits that stay small however large it is.

A step that moves rows does so slice by slice. Meanwhile the file's user_version says that it is under way. So a crash
between two slices loses nothing: the next start goes on with the rows that are left.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from sqlite3 import Connection
from typing import NamedTuple

_CHECKPOINT_PAGES = 4000  # of the log, 16 MiB, after which it is written back

Slice = Callable[[Connection], bool]
"""Moves some rows within a transaction; returns whether there may be more."""


class Step(NamedTuple):
    """The way from one schema to the next: `begin`, and where rows are moved, the `slices` one by one, then `end`.

    `begin` and `end` are statements, each in one commit. A step without slices has no `end`.
    """

    begin: str
    slices: Sequence[Slice] = ()
    end: str = ""


def create(connection: Connection, steps: Sequence[Step]) -> None:
    """Make all tables in an empty file, which has no rows to move, within a transaction."""
    for step in steps:
        _execute(connection, step.begin)
        _execute(connection, step.end)


def migrate(connection: Connection, steps: Sequence[Step], user_version: int, under_way: int) -> None:
    """Take the steps that a file with this user_version lacks. `under_way` marks one that has been begun (`schema`)."""
    schema = user_version % under_way
    has_begun = user_version >= under_way
    for number, step in enumerate(steps[schema:], schema):
        if not has_begun:
            with commit(connection):
                _execute(connection, step.begin)
                connection.execute(f"PRAGMA user_version={number + under_way if step.slices else number + 1}")
        has_begun = False
        if step.slices:
            _move(connection, step.slices)
            with commit(connection):
                _execute(connection, step.end)
                connection.execute(f"PRAGMA user_version={number + 1}")


@contextmanager
def commit(connection: Connection) -> Iterator[None]:
    """Commit what is done within, or nothing of it where that raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _move(connection: Connection, slices: Sequence[Slice]) -> None:
    """Move all rows. No slice need be on the disk before the last commit, so the disk is waited for less often."""
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
    for move in slices:
        has_more = True
        while has_more:
            with commit(connection):
                has_more = move(connection)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=1000")


def _execute(connection: Connection, statements: str) -> None:
    for statement in filter(str.strip, statements.split(";")):
        connection.execute(statement)
