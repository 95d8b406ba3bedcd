"""The places of settled mails: numbers that rise with each mail, in one series for each of two kinds."""

from collections.abc import Callable
from sqlite3 import Connection
from typing import NamedTuple

REQUESTED = 1 << 40
"""Where the places of mails begin that a repeated request id finds."""

_LOOKED_AT = 64  # rows at a time

_LAST = "SELECT place + mails FROM settled WHERE place < ? ORDER BY place DESC LIMIT 1"
_FIRST = "SELECT min(place) FROM settled WHERE place >= ? AND place < ?"
_REMEMBERED = "SELECT min(place) FROM remembered WHERE place >= ? AND place < ?"
_AT = "SELECT place, place + mails, forgotten, ends FROM settled WHERE place <= ? ORDER BY place DESC LIMIT 1"
_FROM = (
    "SELECT place, place + mails, forgotten, ends FROM settled WHERE place >= ? AND place < ? ORDER BY place LIMIT ?"
)
_FORGET = "DELETE FROM settled WHERE place >= ? AND place < ?"


class Row(NamedTuple):
    """The places of a row, up to before `end`, and until when its mails are found by their ids and request ids."""

    place: int
    end: int
    forgotten: float
    ends: float


class Series:
    """One series of places, as the file has it: those of mails that have a request id, or of the others.

    `next` is free, `first` is that of the oldest row, `remembered` that of the oldest mail that its id still finds.
    Rows before `merged` are as large as they will be. No place is used twice while a request id names it, since the
    rows of the latest mails are forgotten last.
    """

    def __init__(self, connection: Connection, *, requested: bool) -> None:
        self.base = REQUESTED if requested else 0
        self.top = self.base + REQUESTED
        within = (self.base, self.top)
        [end] = connection.execute(_LAST, (self.top,)).fetchone() or (0,)
        self.next = max(self.base + 1, end)
        [first] = connection.execute(_FIRST, within).fetchone()
        [remembered] = connection.execute(_REMEMBERED, within).fetchone()
        self.first: int = first or self.next
        self.remembered: int = remembered or self.next
        self.merged = self.first

    def __repr__(self) -> str:
        return f"<Series {self.first} to {self.next}, remembered from {self.remembered}>"

    def oldest(self, connection: Connection) -> Row | None:
        """Return the row of the oldest mail that its id still finds, None where none does."""
        if self.remembered >= self.next:
            return None
        row = connection.execute(_AT, (self.remembered,)).fetchone()
        if row is None or row[1] <= self.remembered:  # a mail was opened again
            row = connection.execute(_FROM, (self.remembered, self.top, 1)).fetchone()
            if row is None:
                self.remembered = self.next
                return None
            self.remembered = row[0]
        return Row(*row)

    def forget_ids(self, connection: Connection) -> None:
        """Delete the ids and contents of all mails before `remembered`."""
        within = (self.base, self.remembered)
        connection.execute("DELETE FROM remembered WHERE place >= ? AND place < ?", within)
        if connection.execute("DELETE FROM failed WHERE place >= ? AND place < ?", within).rowcount:
            self.merged = self.first  # their rows had to stay as they were

    def forget_rows(self, connection: Connection, is_over: Callable[[Row], bool]) -> bool:
        """Delete the oldest rows that are over, some at a time; returns whether there may be more."""
        before = self.first
        rows = [Row(*row) for row in connection.execute(_FROM, (self.first, self.top, _LOOKED_AT))]
        left = next((row for row in rows if not is_over(row)), None)
        if left is not None:
            self.first = left.place
        elif rows:
            self.first = rows[-1].end
        if self.first > before:
            connection.execute(_FORGET, (self.base, self.first))
            self.merged = max(self.merged, self.first)
        return left is None and len(rows) == _LOOKED_AT
