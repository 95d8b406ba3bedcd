"""Statements over many rows: each gives the interpreter to the loop and waits to have it back, so few are better.

A statement takes 1, 2, 4 and so on to 512 rows, so that SQLite parses few texts, and keeps them. Its places that are
left are NULL, and have no effect.
"""

from collections.abc import Iterator, Sequence
from sqlite3 import Connection
from typing import TypeVar

T = TypeVar("T")
Row = tuple[object, ...]

_MOST = 512


def insert(connection: Connection, statement: str, rows: Sequence[Row]) -> None:
    """Run `INSERT INTO` a table with these rows, whose first column is never NULL."""
    for some in padded_rows(rows):
        values = f"{statement} SELECT * FROM (VALUES {tuples(some)}) WHERE column1 IS NOT NULL"  # noqa: S608  our names
        connection.execute(values, flat(some))


def delete(connection: Connection, table: str, column: str, values: Sequence[object]) -> None:
    """Delete the rows whose column has one of the values."""
    for some in padded(values):
        connection.execute(f"DELETE FROM {table} WHERE {column} IN ({placeholders(some)})", some)  # noqa: S608  our names


def padded(values: Sequence[T]) -> Iterator[list[T | None]]:
    """Yield the values in parts, each filled up to a power of two with None."""
    for start in range(0, len(values), _MOST):
        some: list[T | None] = list(values[start : start + _MOST])
        missing = (1 << (len(some) - 1).bit_length()) - len(some)
        yield some + [None] * missing


def padded_rows(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Yield rows of one length in parts, each filled up to a power of two with rows of NULL."""
    if rows:
        filler = (None,) * len(rows[0])
        for some in padded(rows):
            yield [row or filler for row in some]


def placeholders(values: Sequence[object]) -> str:
    """Return a placeholder for each value."""
    return ", ".join("?" * len(values))


def tuples(rows: Sequence[Row]) -> str:
    """Return placeholders for rows of one length."""
    return ", ".join([f"({placeholders(rows[0])})"] * len(rows))


def flat(rows: Sequence[Row]) -> list[object]:
    """Return the values of all rows, one behind the other."""
    return [value for row in rows for value in row]
