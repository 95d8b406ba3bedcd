"""Merges rows of few settled mails into packs, which take less room and are forgotten together."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import field
from sqlite3 import Connection

from otpmail.errors import StoreError
from otpmail.store.sqlite.bulk import insert
from otpmail.store.sqlite.packs import Packs
from otpmail.store.sqlite.series import Series
from otpmail.values import frozen

_ENOUGH = 32
"""Mails of a row from which on it is not merged. To read one of 64 takes a tenth of a millisecond."""

_AT_ONCE = 512  # rows

_INSERT = "INSERT INTO settled"
_SMALL = """
SELECT place, mails, forgotten, ends, id, records, EXISTS (SELECT 1 FROM failed WHERE failed.place = settled.place)
FROM settled WHERE place >= ? AND place < ? ORDER BY place LIMIT ?
"""


@frozen()
class _Row:
    """A row of the table, and whether its mail has content."""

    place: int
    mails: int
    forgotten: float
    ends: float
    mail_id: str | None
    records: bytes = field(repr=False)
    has_content: bool

    @property
    def end(self) -> int:
        """The place behind its mails."""
        return self.place + self.mails


class Merger:
    """Merges rows of a file, whose records `packs` opens."""

    def __init__(self, packs: Packs) -> None:
        self._packs = packs

    def __repr__(self) -> str:
        return f"<Merger {self._packs!r}>"

    def merge(self, connection: Connection, series: Series) -> bool:
        """Merge small rows of a sequence, some at a time; returns whether there may be more.

        One stays alone whose mail may be opened again, or can't be read.
        """
        bounds = (series.merged, series.top, _AT_ONCE)
        rows = [_Row(*row) for row in connection.execute(_SMALL, bounds)]
        group: list[tuple[_Row, list[bytes]]] = []
        size = 0
        for row in rows:
            opened = self._open_small(row)
            follows = not group or group[-1][0].end == row.place
            if opened is None or not follows or size >= _ENOUGH:
                self._replace(connection, group)
                group, size = [], 0
                series.merged = row.place if opened is not None else row.end
            if opened is not None:
                group.append((row, opened))
                size += row.mails
        if size >= _ENOUGH:
            self._replace(connection, group)
            series.merged = group[-1][0].end
        return len(rows) == _AT_ONCE

    def _open_small(self, row: _Row) -> list[bytes] | None:
        if row.mails >= _ENOUGH or row.has_content:
            return None
        with suppress(StoreError):
            return self._packs.open(row.place, row.mails, row.mail_id, row.records)
        return None

    def _replace(self, connection: Connection, group: Sequence[tuple[_Row, list[bytes]]]) -> None:
        """Write one pack in place of several rows."""
        if len(group) < 2:
            return
        mails = [octets for _, opened in group for octets in opened]
        place, rows = group[0][0].place, [row for row, _ in group]
        connection.execute("DELETE FROM settled WHERE place >= ? AND place <= ?", (place, rows[-1].place))
        ends = max([row.forgotten for row in rows]), max([row.ends for row in rows])
        insert(connection, _INSERT, [(place, len(mails), *ends, None, self._packs.seal(place, mails))])
