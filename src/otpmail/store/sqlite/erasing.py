"""Erases a person from settled mails, in the writer thread and within its transactions."""

from contextlib import suppress
from sqlite3 import Connection

from otpmail.errors import StoreError
from otpmail.store.erasing import erased
from otpmail.store.sqlite.packs import Packs

_AT_ONCE = 32  # rows
_FROM = "SELECT place, mails, id, records FROM settled WHERE place > ? ORDER BY place LIMIT ?"


def erase(connection: Connection, packs: Packs, person: bytes, after: int) -> tuple[list[int], int]:
    """Erase a person from some rows behind a place; returns the places of the mails, and the last place looked at.

    It is 0 where there are no more. The old octets are overwritten. Mails that can't be read stay.
    """
    rows = connection.execute(_FROM, (after, _AT_ONCE)).fetchall()
    found: list[int] = []
    connection.execute("PRAGMA secure_delete=ON")
    for place, mails, mail_id, records in rows:
        with suppress(StoreError):
            kept = packs.open(place, mails, mail_id, records)
            left = {number: one.octets for number, octets in enumerate(kept) if (one := erased(octets, person))}
            if left:
                kept = [left.get(number, octets) for number, octets in enumerate(kept)]
                sealed = packs.seal(place, kept) if mail_id is None else packs.seal_one(mail_id, *kept)
                connection.execute("UPDATE settled SET records = ? WHERE place = ?", (sealed, place))
                found += [place + number for number in left]
    connection.execute("PRAGMA secure_delete=FAST")
    return found, rows[-1][0] if len(rows) == _AT_ONCE else 0
