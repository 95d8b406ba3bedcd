"""Moves the rows of schema 3 to schema 4, a slice in each commit: settled mails, request ids, codes.

A slice has a bound of rows and of octets, so neither memory nor the log of SQLite grows with the file. Each slice
begins behind the rows that have been moved before.
"""

from itertools import groupby
from sqlite3 import Connection

_MOST_ROWS = 6_000  # each may change a page of its own: 24 MiB of log
_MOST_CODES = 30_000  # which change pages in a row
_MOST_OCTETS = 8 << 20
_KEPT = 1 << 40  # where the places of mails begin that a repeated request id finds (`series`)

_LAST_COPIED = """
SELECT kept, ends, seq FROM settled_3 WHERE id = (SELECT id FROM settled ORDER BY place DESC LIMIT 1)
"""
_NEXT = """
SELECT seq, kept, length(record) + coalesce((SELECT octets FROM failed_3 WHERE failed_3.seq = settled_3.seq), 0)
FROM settled_3 INDEXED BY settled_ends
WHERE (kept, ends, seq) > (?, ?, ?) AND ends > (SELECT time FROM clock) ORDER BY kept, ends, seq LIMIT ?
"""
_COPY = (
    """
    INSERT INTO settled SELECT place, 1, ends, ends * kept, id, record FROM slice CROSS JOIN settled_3 USING (seq)
    ORDER BY place
    """,
    "INSERT INTO remembered SELECT place, id FROM slice CROSS JOIN settled_3 USING (seq) ORDER BY place",
    """
    INSERT INTO failed SELECT place, ends, octets, progress, payload FROM slice CROSS JOIN failed_3 USING (seq)
    ORDER BY place
    """,
)
_MOVE_REQUESTS = """
INSERT INTO request
    SELECT
        request_3.seq, key_number(key), state, CAST(iif(state = 3, settled_3.ends, request_3.ends) AS INTEGER),
        kept_fingerprint(fingerprint), remembered.place
    FROM request_3 LEFT JOIN settled_3 USING (seq) LEFT JOIN remembered ON remembered.id = settled_3.id
    WHERE key <= ? AND (state < 2 OR remembered.place IS NOT NULL)
    ORDER BY 1
"""
_CLAIMED = """
INSERT INTO claimed
    SELECT seq, mail FROM request_3 WHERE key <= ? AND state < 2 AND seq NOT IN (SELECT seq FROM mail)
"""
_PARTS = 40  # bits of a row in `named` beside its part
_NAME = """
SELECT record_name(key), ends, record FROM code_3
WHERE key <= ? AND key != x'' AND ends > (SELECT time FROM clock) ORDER BY 1
"""
_LAST_OF_PART = "SELECT coalesce(max(row), ?) FROM named WHERE row >= ? AND row < ?"
_SORT_CODES = """
INSERT INTO code SELECT name, ends, record FROM named WHERE row >= ? AND row < ? AND name > ? ORDER BY name LIMIT ?
"""


def copy_settled(connection: Connection) -> bool:
    """Copy settled mails that are not past their time, with their contents, in the order of their ends."""
    last = connection.execute(_LAST_COPIED).fetchone() or (0, 0.0, 0)
    [place] = connection.execute("SELECT coalesce(max(place), 0) FROM settled").fetchone()
    placed: list[tuple[int, int]] = []
    octets = 0
    for seq, kept, size in connection.execute(_NEXT, (*last, _MOST_ROWS)).fetchall():
        place = max(place, kept * _KEPT) + 1
        placed.append((place, seq))
        octets += size
        if octets >= _MOST_OCTETS:
            break
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS slice(place INTEGER PRIMARY KEY, seq INTEGER NOT NULL)")
    connection.execute("DELETE FROM slice")
    connection.executemany("INSERT INTO slice VALUES (?, ?)", placed)
    for statement in _COPY:
        connection.execute(statement)
    return bool(placed)


def move_requests(connection: Connection) -> bool:
    """Move request ids that run, or whose mail is remembered, and overwrite what stood in their place."""
    last = _last_of_slice(connection, "request_3", _MOST_ROWS)
    if last is not None:
        connection.execute(_MOVE_REQUESTS, (last,))
        connection.execute(_CLAIMED, (last,))
        connection.execute("DELETE FROM request_3 WHERE key <= ?", (last,))
    return last is not None


def name_codes(connection: Connection) -> bool:
    """Give code records that have not ended names with a key, and overwrite what stood in their place.

    Names are in no order, so each would change another page of the table `code`. They come into `named` first, in parts
    by their first octet.
    """
    last = _last_of_slice(connection, "code_3", _MOST_CODES)
    if last is None:
        return False
    for part, records in groupby(connection.execute(_NAME, (last,)).fetchall(), key=lambda record: record[0][0]):
        first, end = part << _PARTS, (part + 1) << _PARTS
        [row] = connection.execute(_LAST_OF_PART, (first, first, end)).fetchone()
        rows = [(number, *record) for number, record in enumerate(records, row + 1)]
        connection.executemany("INSERT INTO named VALUES (?, ?, ?, ?)", rows)
    connection.execute("DELETE FROM code_3 WHERE key <= ?", (last,))
    return True


def sort_codes(connection: Connection) -> bool:
    """Copy code records in the order of their names."""
    [last] = connection.execute("SELECT coalesce(max(key), x'') FROM code").fetchone()
    moved = 0
    for part in range(last[0] if last else 0, 256):
        bounds = part << _PARTS, (part + 1) << _PARTS
        moved += connection.execute(_SORT_CODES, (*bounds, last, _MOST_CODES - moved)).rowcount
        if moved >= _MOST_CODES:
            return True
    return False


def _last_of_slice(connection: Connection, table: str, most: int) -> bytes | None:
    """Return the last key of the table's first rows, None without any; what is deleted from now on is overwritten."""
    connection.execute("PRAGMA secure_delete=ON")
    keys = f"SELECT key FROM {table} ORDER BY key LIMIT {most}"  # noqa: S608  our names
    [last] = connection.execute(f"SELECT max(key) FROM ({keys})").fetchone()  # noqa: S608  our names
    found: bytes | None = last
    return found
