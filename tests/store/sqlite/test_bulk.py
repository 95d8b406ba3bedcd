"""Statements over many rows: few of them, and of few lengths."""

import sqlite3
from contextlib import closing

import pytest

from otpmail.store.sqlite.bulk import delete, insert, padded


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, []), (1, [1]), (2, [2]), (7, [8]), (16, [16]), (300, [512]), (513, [512, 1]), (1500, [512, 512, 512])],
)
def test_sizes_of_parts(count: int, sizes: list[int]) -> None:
    """Up to 512 values are one part, whose length is a power of two; they keep their order, and None fills the rest."""
    found = list(padded(range(count)))
    assert [len(part) for part in found] == sizes
    assert [value for part in found for value in part if value is not None] == list(range(count))


@pytest.mark.parametrize("count", [1, 15, 16, 17, 300, 1500])
def test_rows_of_any_number(count: int) -> None:
    """All rows are written and deleted, however many they are."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE some(number, name)")
        insert(connection, "INSERT INTO some", [(number, f"n{number}") for number in range(count)])
        assert connection.execute("SELECT count(*), max(number) FROM some").fetchone() == (count, count - 1)
        delete(connection, "some", "number", list(range(1, count)))
        assert connection.execute("SELECT number, name FROM some").fetchall() == [(0, "n0")]
