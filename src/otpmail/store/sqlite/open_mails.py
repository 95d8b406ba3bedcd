"""Reads mails that have not settled, in the writer thread and within its transactions."""

from collections.abc import Sequence
from dataclasses import replace
from sqlite3 import Connection

from otpmail.errors import StoreError
from otpmail.store import codec
from otpmail.store.base import Entry
from otpmail.store.cipher import Cipher


def read_open(connection: Connection, cipher: Cipher, seq: int) -> Entry | None:
    """Return one accepted mail with its progress, by its `seq`, None if it is not there. Raises StoreError."""
    row = connection.execute("SELECT id, payload FROM mail WHERE seq = ?", (seq,)).fetchone()
    if row is None:
        return None
    mail_id, payload = row
    entry = codec.decode_entry(cipher.open(payload, "mail", mail_id))
    noted = connection.execute("SELECT progress FROM progress WHERE seq = ?", (seq,)).fetchone()
    if noted is None:
        return entry
    return replace(entry, progress=codec.decode_progress(cipher.open(noted[0], "progress", mail_id)))


def read_several(connection: Connection, cipher: Cipher, seqs: Sequence[int]) -> tuple[list[Entry], list[str]]:
    """Return accepted mails by their `seq`, and a line for each that can't be read."""
    entries, faults = [], []
    for seq in seqs:
        try:
            entry = read_open(connection, cipher, seq)
        except (StoreError, ValueError) as error:
            faults.append(str(error))
        else:
            entries += [] if entry is None else [entry]
    return entries, faults
