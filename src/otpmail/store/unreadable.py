"""The line of the log about accepted mails that a store has and can't read, as without their key."""

import logging

from otpmail.counts import counted

_log = logging.getLogger("otpmail")


def log_unreadable(mails: int, fault: str) -> None:
    """Log at error how many stay in the store, and why one of them can't be read."""
    _log.error(
        "%s can't be read; left in the store: %s",
        *(counted(mails, "accepted mail"), fault),
        extra={"event": "mails-unreadable", "fields": {"mails": mails}},
    )
