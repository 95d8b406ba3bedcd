"""Statements over many rows: each gives the interpreter to the loop and waits to have it back, so few are better.

A statement takes up to 16 rows, or 32, 64 or 128, so that SQLite parses few texts, and keeps them.
"""

from collections.abc import Iterator, Sequence
from sqlite3 import Connection
from typing import TypeVar

T = TypeVar("T")

_MOST = 128
_ANY = 16  # rows up to which there is a statement for each number of them


def insert(connection: Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Run `INSERT ... VALUES` with these rows."""
    for some in parts(rows):
        connection.execute(f"{statement} {tuples(some)}", flat(some))


def delete(connection: Connection, table: str, column: str, values: Sequence[object]) -> None:
    """Delete the rows whose column has one of the values."""
    for some in parts(values):
        connection.execute(f"DELETE FROM {table} WHERE {column} IN ({places(some)})", some)  # noqa: S608  our names


def parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the values in parts, each as long as the largest power of two that fits, and the last few as they are."""
    start, size = 0, _MOST
    while left := len(values) - start:
        while size > left > _ANY:
            size >>= 1
        size = min(size, left)
        yield values[start : start + size]
        start += size


def places(values: Sequence[object]) -> str:
    """Return a placeholder for each value."""
    return ", ".join("?" * len(values))


def tuples(rows: Sequence[tuple[object, ...]]) -> str:
    """Return placeholders for rows of one length."""
    return ", ".join([f"({places(rows[0])})"] * len(rows))


def flat(rows: Sequence[tuple[object, ...]]) -> list[object]:
    """Return the values of all rows, one behind the other."""
    return [value for row in rows for value in row]
