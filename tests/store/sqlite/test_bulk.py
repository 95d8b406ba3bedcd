"""Statements over many rows: few of them, and of few lengths."""

import sqlite3
from contextlib import closing

import pytest

from otpmail.store.sqlite.bulk import delete, insert, parts


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, []), (1, [1]), (7, [7]), (16, [16]), (17, [16, 1]), (47, [32, 15]), (300, [128, 128, 32, 12])],
)
def test_sizes_of_parts(count: int, sizes: list[int]) -> None:
    """Up to 16 values are one part, and more are parted by powers of two and one rest, in their order."""
    found = list(parts(range(count)))
    assert [len(part) for part in found] == sizes
    assert [value for part in found for value in part] == list(range(count))


@pytest.mark.parametrize("count", [1, 15, 16, 17, 129, 300])
def test_rows_of_any_number(count: int) -> None:
    """All rows are written and deleted, however many they are."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE some(number, name)")
        insert(connection, "INSERT INTO some VALUES", [(number, f"n{number}") for number in range(count)])
        assert connection.execute("SELECT count(*), max(number) FROM some").fetchone() == (count, count - 1)
        delete(connection, "some", "number", list(range(1, count)))
        assert connection.execute("SELECT number, name FROM some").fetchall() == [(0, "n0")]
