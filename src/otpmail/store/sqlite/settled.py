"""Settled mails in the order of their ends, in the writer thread and within its transactions.

The mails that settle in one commit lie in one row, in places behind each other. So they are written, encrypted and
forgotten together, and only the last page of the table changes. Small rows are merged later.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import field
from sqlite3 import Connection
from typing import NamedTuple

from otpmail.errors import StoreError
from otpmail.model import Mail
from otpmail.store import codec
from otpmail.store.cipher import Cipher
from otpmail.store.levels import level
from otpmail.store.sqlite.bulk import insert
from otpmail.store.sqlite.caller_counts import CallerCounts
from otpmail.store.sqlite.erasing import erase
from otpmail.store.sqlite.merging import Merger
from otpmail.store.sqlite.packs import Packs
from otpmail.store.sqlite.series import Row as SeriesRow
from otpmail.store.sqlite.series import Series
from otpmail.values import frozen

_FEWEST = 4  # mails from which on a pack is smaller than rows of their own
_FORGOTTEN_AT_ONCE = 512  # mails

_INSERT = "INSERT INTO settled"
_AT = "SELECT place, mails, id, records FROM settled WHERE place <= ? ORDER BY place DESC LIMIT 1"
_BEHIND = """
SELECT place, mails, id, records FROM settled
WHERE place > ? AND place + mails > CASE WHEN place < ? THEN ? ELSE ? END ORDER BY place
"""


IsNamed = Callable[[Mail, int], bool]


@frozen()
class SettledMail:
    """A settled mail as octets. Its id finds it until `forgotten`, its request id until `ends`, which is 0 without one.

    `has_content`: it may be opened again, so it stays alone in its row.
    """

    mail_id: str
    caller: str
    octets: bytes = field(repr=False)
    forgotten: float
    ends: float
    has_content: bool

    def __repr__(self) -> str:
        return f"<SettledMail {self.mail_id}>"


class Moved(NamedTuple):
    """A mail that was moved from one place to another, and its request id, which may be empty."""

    caller: str
    request_id: str
    place: int
    new: int


class Settled:
    """The settled mails of one file: `most` that their ids find, and `most_requests` that their request ids find."""

    def __init__(self, cipher: Cipher, *, most: int, most_requests: int) -> None:
        self._packs = Packs(cipher)
        self._merger = Merger(self._packs)
        self._most = most
        self._most_requests = most_requests
        self._new: dict[int, SettledMail] = {}
        self._series: tuple[Series, Series] | None = None  # without and with a request id; None: to be read
        self._counts: CallerCounts  # as long as the places are known
        self.moved: list[Moved] = []

    def __repr__(self) -> str:
        return f"<Settled {len(self._new)} to write, {self._packs!r}>"

    def add(self, connection: Connection, mail: SettledMail) -> int:
        """Keep a mail, and return its place."""
        series = self._both(connection)[bool(mail.ends)]
        place = series.next
        series.next += 1
        self._new[place] = mail
        self._counts.add(place, mail.caller, requested=bool(mail.ends))
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

    def erase(self, connection: Connection, person: bytes, after: int) -> tuple[list[int], int]:
        """Erase a person from some rows behind a place (`erasing.erase`)."""
        self.write_added(connection)
        return erase(connection, self._packs, person, after)

    def remove(self, connection: Connection, place: int) -> None:
        """Remove a mail that is alone in its row."""
        self.write_added(connection)
        self._both(connection)
        self._counts.remove(place)
        connection.execute("DELETE FROM settled WHERE place = ?", (place,))
        connection.execute("DELETE FROM remembered WHERE place = ?", (place,))

    def end(self, *, committed: bool) -> None:
        """Forget what this transaction has not written, since it has ended."""
        self._new = {}
        if not committed:
            self._series = None

    # Mails past their time.

    def forget(self, connection: Connection, now: float, is_named: IsNamed) -> bool:
        """Forget mails past their time, or beyond the most there may be; returns whether there may be more.

        Beyond the most, a caller with more than its share loses its oldest. The oldest ones of others move to new
        places, of which `moved` tells until this is called again. `is_named` says whether a request id names a place.
        """
        self.write_added(connection)
        self.moved = []
        plain, requested = self._both(connection)
        newest = requested.next  # mails that move behind it are not to move again
        is_known = self._learn(connection)
        more = self._forget_ids(connection, now, is_known=is_known) >= _FORGOTTEN_AT_ONCE
        more |= plain.forget_rows(connection, lambda row: row.end <= plain.remembered)
        if is_known:
            most, counts = self._most_requests, self._counts
            least = level(counts.requests.values(), most)
            end = min(counts.passed + _FORGOTTEN_AT_ONCE, newest)
            self._move(connection, counts.pass_requests(end, most, least), is_named)
            more |= counts.requests.total() > most or counts.total > self._most
        passed = self._counts.passed
        more |= requested.forget_rows(connection, lambda row: row.ends <= now or row.end <= passed)
        if requested.remembered < requested.first:
            self._counts.forget_ids(requested.remembered, requested.first, requested=True)
            requested.remembered = requested.first
        requested.forget_ids(connection)
        self._counts.forget_rows()
        return more or not is_known

    def _learn(self, connection: Connection) -> bool:
        """Learn whose mails there are, some at a time, where they may be too many; returns whether that is known."""
        both = self._both(connection)
        ids = sum([series.next - series.remembered for series in both])
        if ids <= self._most and both[True].next - self._counts.passed <= self._most_requests:
            return True
        return self._counts.learn(connection, self._packs)

    def _forget_ids(self, connection: Connection, now: float, *, is_known: bool) -> int:
        """Forget the ids of the oldest mails, of whichever kind; returns how many it has looked at."""
        both, counts = self._both(connection), self._counts
        least = level(counts.each(), self._most) if is_known else 0
        over = counts.over(least) if is_known else []
        looked_at = 0
        while looked_at < _FORGOTTEN_AT_ONCE and (found := self._next_row(connection, now, over, least)) is not None:
            series, row = found
            first = series.remembered
            if row.forgotten <= now:
                counts.forget_ids(first, row.end, requested=series is both[True])
                series.remembered = row.end
            else:
                self._move(connection, counts.pass_ids(series, row.end, counts.total - self._most, least))
            looked_at += series.remembered - first
        if looked_at:
            for series in both:
                series.forget_ids(connection)
        return looked_at

    def _next_row(
        self, connection: Connection, now: float, over: Sequence[int], least: int
    ) -> tuple[Series, SeriesRow] | None:
        """Return the next row whose ids are forgotten: one past its time, or one before mails of callers with too many.

        `over` are those who had more than `least` mails before. It is None where nothing is to be forgotten.
        """
        both, counts = self._both(connection), self._counts
        oldest = [(series, row) for series in both if (row := series.oldest(connection)) is not None]
        oldest.sort(key=lambda one: one[1].forgotten)
        if oldest and oldest[0][1].forgotten > now:
            if counts.total <= self._most:
                return None
            still = [number for number in over if counts.is_over(number, least)]
            oldest = [one for one in oldest if counts.has_any(still, requested=one[0] is both[True])]
        return next(iter(oldest), None)

    def _move(self, connection: Connection, spared: Sequence[int], is_named: IsNamed | None = None) -> None:
        """Move mails to new places, behind all others of their kind, if ids or request ids still find them there.

        Those that were moved before lie in their old rows too, until these are deleted.
        """
        for place in spared:
            octets = self.get(connection, place)
            if octets is None:
                continue
            mail, forgotten, request_ends, _ = codec.decode_settled(octets)
            if not (is_named(mail, place) if is_named else self.place_of(connection, mail.id) == place):
                continue
            ends = max(request_ends, forgotten) if request_ends else 0.0
            new = self._both(connection)[bool(ends)].next
            kept = connection.execute("UPDATE failed SET place = ? WHERE place = ?", (new, place)).rowcount
            connection.execute("DELETE FROM remembered WHERE id = ?", (mail.id,))
            self.add(connection, SettledMail(mail.id, mail.caller, octets, forgotten, ends, bool(kept)))
            self.moved.append(Moved(mail.caller, mail.request_id, place, new))
        self.write_added(connection)

    def firsts(self, connection: Connection) -> tuple[int, int]:
        """Return the places of the oldest mails: without a request id that finds them, and with one."""
        plain, requested = self._both(connection)
        return plain.first, requested.first

    def rewind(self) -> None:
        """Look again whether old rows can be merged."""
        for series in self._series or ():
            series.merged = series.first

    def merge(self, connection: Connection) -> bool:
        """Merge small rows into packs, some at a time; returns whether there may be more."""
        self.write_added(connection)
        return max([self._merger.merge(connection, series) for series in self._both(connection)])

    def _both(self, connection: Connection) -> tuple[Series, Series]:
        if self._series is None:
            self._series = Series(connection, requested=False), Series(connection, requested=True)
            self._counts = CallerCounts(*self._series)
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
