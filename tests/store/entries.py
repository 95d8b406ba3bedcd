"""Mails as stores get them, in short."""

from dataclasses import replace

from otpmail.model import Envelope, Mail, MailState, Priority, RecipientResult
from otpmail.store.base import Entry, Progress, Request

REMEMBER_SECONDS = 3600.0
REMEMBER_COUNT = 5
DAY = 24 * 3600.0
R1 = Request("shop", "r1", b"f")


def mail_of(mail_id: str = "m1", *, caller: str = "shop", request_id: str = "", create_time: float = 1.0) -> Mail:
    """Return a mail that is queued."""
    return Mail(mail_id, caller, f"<{mail_id}@example.org>", create_time, request_id)


def settled(mail: Mail, settle_time: float = 1000.0) -> Mail:
    """Return the mail as the relay took it."""
    results = (RecipientResult("ada@example.org", 250, "2.0.0", "ok"),)
    return replace(mail, state=MailState.RELAYED, recipients=results, attempts=1, settle_time=settle_time)


def entry_of(
    mail: Mail, fingerprint: bytes = b"f", *, priority: Priority = Priority.NORMAL, content: bytes = b"hi\r\n"
) -> Entry:
    """Return the mail with content and terms."""
    return Entry(
        mail=mail,
        envelope=Envelope("service@example.org", ("ada@example.org",), content, id=mail.id),
        priority=priority,
        deadline=60.0,
        progress=Progress(pending=("ada@example.org",)),
        fingerprint=fingerprint,
    )
