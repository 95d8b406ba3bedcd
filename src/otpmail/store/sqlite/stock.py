"""Takes stock of a store's file at the start: the mails to be taken up, and request ids that nobody will settle."""

from sqlite3 import Connection

from otpmail.model import Priority
from otpmail.store.base import Left
from otpmail.store.clock import Boot, Mark
from otpmail.store.sqlite.changes import RequestState

_PRIORITIES = tuple(Priority)  # calling the Enum takes its time

_GREATEST = """
SELECT max(seq) FROM (
    SELECT max(seq) AS seq FROM mail UNION ALL SELECT max(seq) FROM request
)
"""
_RUNNING = "SELECT seq FROM request WHERE state = ?"
_ORPHAN = (
    "UPDATE request SET state = ? WHERE seq = ? AND EXISTS (SELECT 1 FROM claimed WHERE claimed.seq = request.seq)"
)
_FREE = "DELETE FROM request WHERE seq = ? AND state = ?"
_PROGRESS_ENDS = """
CREATE TEMP TRIGGER progress_ends AFTER DELETE ON mail BEGIN DELETE FROM progress WHERE seq = OLD.seq; END
"""
"""A statement less in each commit: the few rows of this table go with their mails."""


def take_stock(connection: Connection) -> tuple[list[tuple[int, Left]], int, Mark, bool]:
    """Return the open mails, urgent and old ones last, the next `seq`, and the last mark in the file.

    The last value is whether the process before was killed; this one counts as such until `leave`. Request ids whose
    mail neither settled nor was accepted are orphaned from now on.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        rows = connection.execute("SELECT seq, id, priority, deadline FROM mail ORDER BY seq DESC")
        mails = [(seq, Left(mail_id, _PRIORITIES[priority], deadline)) for seq, mail_id, priority, deadline in rows]
        known = {seq for seq, _ in mails}  # rather than the table, whose pages have the contents too
        running = [seq for (seq,) in connection.execute(_RUNNING, (RequestState.RUNNING,)) if seq not in known]
        connection.executemany(_ORPHAN, [(RequestState.ORPHANED, seq) for seq in running])
        # The end of the mail of any other could not be written.
        connection.executemany(_FREE, [(seq, RequestState.RUNNING) for seq in running])
        connection.execute(_PROGRESS_ENDS)
        [greatest] = connection.execute(_GREATEST).fetchone()
        found = connection.execute("SELECT time, boot, boot_seconds, running FROM clock").fetchone()
        time, boot, boot_seconds, was_killed = found
        connection.execute("UPDATE clock SET running = 1")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    mails.sort(key=lambda mail: mail[1].priority, reverse=True)
    return mails, (greatest or 0) + 1, Mark(time, Boot(boot, boot_seconds)), bool(was_killed)


def leave(connection: Connection) -> None:
    """Note that this process has released its mails."""
    connection.execute("UPDATE clock SET running = 0")
