"""The lines of the log that more than one store has."""

import logging

from otpmail.counts import counted

_log = logging.getLogger("otpmail")


def log_unreadable(mails: int, fault: str) -> None:
    """Log how many accepted mails stay in the store, as without their key, and why one of them can't be read."""
    _log.error(
        "%s can't be read; left in the store: %s",
        *(counted(mails, "accepted mail"), fault),
        extra={"event": "mails-unreadable", "fields": {"mails": mails}},
    )


def log_unwritten(changes: int) -> None:
    """Log that a stop leaves so many changes unwritten, 0 where their number is not known."""
    _log.error(
        "the store could not be written before the stop; mails that were sent may be sent again",
        extra={"event": "store-unwritten", "fields": {"changes": changes}},
    )
