"""Settled mails in the order of their ends, in the writer thread and within its transactions.

The mails that settle in one commit lie in one row, in places behind each other. So they are written, encrypted and
forgotten together, and only the last page of the table changes. Small rows are merged later.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import field
from sqlite3 import Connection

from otpmail.errors import StoreError
from otpmail.store.cipher import Cipher
from otpmail.store.sqlite.bulk import insert
from otpmail.store.sqlite.packs import Packs
from otpmail.store.sqlite.series import Series
from otpmail.values import frozen

_FEWEST = 4  # mails from which on a pack is smaller than rows of their own
_ENOUGH = 32
"""Mails of a row from which on it is not merged. To read one of 64 takes a tenth of a millisecond."""

_MERGED_AT_ONCE = 512  # rows
_FORGOTTEN_AT_ONCE = 512  # mails

_INSERT = "INSERT INTO settled"
_AT = "SELECT place, mails, id, records FROM settled WHERE place <= ? ORDER BY place DESC LIMIT 1"
_BEHIND = """
SELECT place, mails, id, records FROM settled
WHERE place > ? AND place + mails > CASE WHEN place < ? THEN ? ELSE ? END ORDER BY place
"""
_SMALL = """
SELECT place, mails, forgotten, ends, id, records, EXISTS (SELECT 1 FROM failed WHERE failed.place = settled.place)
FROM settled WHERE place >= ? AND place < ? ORDER BY place LIMIT ?
"""


@frozen()
class SettledMail:
    """A settled mail as octets. Its id finds it until `forgotten`, its request id until `ends`, which is 0 without one.

    `has_content`: it may be opened again, so it stays alone in its row.
    """

    mail_id: str
    octets: bytes = field(repr=False)
    forgotten: float
    ends: float
    has_content: bool

    def __repr__(self) -> str:
        return f"<SettledMail {self.mail_id}>"


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


class Settled:
    """The settled mails of one file: `most` that their ids find, and `most_requests` that their request ids find."""

    def __init__(self, cipher: Cipher, *, most: int, most_requests: int) -> None:
        self._packs = Packs(cipher)
        self._most = most
        self._most_requests = most_requests
        self._new: dict[int, SettledMail] = {}
        self._series: tuple[Series, Series] | None = None  # without and with a request id; None: to be read

    def __repr__(self) -> str:
        return f"<Settled {len(self._new)} to write, {self._packs!r}>"

    def add(self, connection: Connection, mail: SettledMail) -> int:
        """Keep a mail, and return its place."""
        series = self._both(connection)[bool(mail.ends)]
        place = series.next
        series.next += 1
        self._new[place] = mail
        return place

    def write_added(self, connection: Connection) -> None:
        """Write the mails that were added in this transaction."""
        if not self._new:
            return
        new, self._new = self._new, {}
        rows: list[tuple[object, ...]] = []
        for run in _runs(new):
            mails = [new[place] for place in run]
            if len(run) < _FEWEST:
                sealed = [self._packs.seal_one(mail.mail_id, mail.octets) for mail in mails]
                alone = zip(run, mails, sealed, strict=True)
                rows += [(place, 1, mail.forgotten, mail.ends, mail.mail_id, one) for place, mail, one in alone]
            else:
                forgotten, ends = max([mail.forgotten for mail in mails]), max([mail.ends for mail in mails])
                packed = self._packs.seal(run[0], [mail.octets for mail in mails])
                rows.append((run[0], len(run), forgotten, ends, None, packed))
        insert(connection, _INSERT, rows)
        insert(connection, "INSERT INTO remembered", [(place, mail.mail_id) for place, mail in new.items()])

    def get(self, connection: Connection, place: int) -> bytes | None:
        """Return the mail at a place. Raises StoreError where it can't be read."""
        self.write_added(connection)
        row: tuple[int, int, str | None, bytes] | None = connection.execute(_AT, (place,)).fetchone()
        if row is None or place >= row[0] + row[1]:
            return None
        return self._packs.open(*row)[place - row[0]]

    def place_of(self, connection: Connection, mail_id: str) -> int:
        """Return the place of a mail that is remembered, else 0."""
        self.write_added(connection)
        row = connection.execute("SELECT place FROM remembered WHERE id = ?", (mail_id,)).fetchone()
        return 0 if row is None else int(row[0])

    def slice(self, connection: Connection, after: int, most: int) -> tuple[list[bytes], int]:
        """Return about `most` remembered mails from behind a place, and the last place of them.

        It is 0 where there are no more. Mails that can't be read, as without their key, are left out.
        """
        self.write_added(connection)
        plain, requested = self._both(connection)
        found: list[bytes] = []
        bounds = (after, requested.base, plain.remembered, requested.remembered)
        for place, mails, mail_id, records in connection.execute(_BEHIND, bounds):
            oldest = (plain if place < requested.base else requested).remembered
            with suppress(StoreError):
                found += self._packs.open(place, mails, mail_id, records)[max(0, oldest - place) :]
            if len(found) >= most:
                return found, place + mails - 1
        return found, 0

    def remove(self, connection: Connection, place: int) -> None:
        """Remove a mail that is alone in its row."""
        self.write_added(connection)
        connection.execute("DELETE FROM settled WHERE place = ?", (place,))
        connection.execute("DELETE FROM remembered WHERE place = ?", (place,))

    def end(self, *, committed: bool) -> None:
        """Forget what this transaction has not written, since it has ended."""
        self._new = {}
        if not committed:
            self._series = None

    # Mails past their time.

    def forget(self, connection: Connection, now: float) -> bool:
        """Forget mails past their time, or beyond the most there may be; returns whether there may be more."""
        self.write_added(connection)
        plain, requested = self._both(connection)
        more = self._forget_ids(connection, now) >= _FORGOTTEN_AT_ONCE
        more |= plain.forget_rows(connection, lambda row: row.end <= plain.remembered)
        most = self._most_requests
        more |= requested.forget_rows(connection, lambda row: row.ends <= now or requested.next - row.place > most)
        if requested.remembered < requested.first:
            requested.remembered = requested.first
            requested.forget_ids(connection)
        return more

    def _forget_ids(self, connection: Connection, now: float) -> int:
        """Forget the ids of the oldest mails, of whichever kind; returns how many."""
        both = self._both(connection)
        forgotten = 0
        while forgotten < _FORGOTTEN_AT_ONCE:
            oldest = [(row.forgotten, series, row) for series in both if (row := series.oldest(connection)) is not None]
            if not oldest:
                break
            time, series, row = min(oldest, key=lambda one: one[0])
            excess = sum([one.next - one.remembered for one in both]) - self._most
            count = row.end - series.remembered
            count = count if time <= now else min(count, excess)
            if count <= 0:
                break
            series.remembered += count
            forgotten += count
        if forgotten:
            for series in both:
                series.forget_ids(connection)
        return forgotten

    def first_requested(self, connection: Connection) -> int:
        """Return the place of the oldest mail that a repeated request id finds."""
        return self._both(connection)[True].first

    def rewind(self) -> None:
        """Look again whether old rows can be merged."""
        self._series = None

    def merge(self, connection: Connection) -> bool:
        """Merge small rows into packs, some at a time; returns whether there may be more.

        One stays alone whose mail may be opened again, or can't be read.
        """
        self.write_added(connection)
        return max([self._merge_some(connection, series) for series in self._both(connection)]) == _MERGED_AT_ONCE

    def _merge_some(self, connection: Connection, series: Series) -> int:
        bounds = (series.merged, series.top, _MERGED_AT_ONCE)
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
        return len(rows)

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

    def _both(self, connection: Connection) -> tuple[Series, Series]:
        if self._series is None:
            self._series = Series(connection, requested=False), Series(connection, requested=True)
        return self._series


def _runs(new: dict[int, SettledMail]) -> Iterator[list[int]]:
    """Yield places that follow each other, without those of mails with content, which come alone."""
    run: list[int] = []
    for place in sorted(new):
        if run and (new[place].has_content or place != run[-1] + 1):
            yield run
            run = []
        if new[place].has_content:
            yield [place]
        else:
            run.append(place)
    if run:
        yield run
