"""Drafts for tests, made as the service makes them: addresses come as text, and every field is checked."""

from collections.abc import Sequence
from typing import Any

from otpmail.address import parse_mailbox, parse_mailboxes
from otpmail.compose.draft import Draft, Limits

ADA = "ada@example.org"
LIMITS = Limits(size=1 << 20, recipients=100)


def read_draft(
    *,
    to: Sequence[str] = (ADA,),
    cc: Sequence[str] = (),
    bcc: Sequence[str] = (),
    from_: str = "",
    sender: str = "",
    reply_to: Sequence[str] = (),
    limits: Limits = LIMITS,
    **content: Any,
) -> Draft:
    """A draft to Ada, unless `to` says otherwise. Raises InvalidArgument."""
    return Draft(
        limits=limits,
        to=parse_mailboxes(to, "to", most=limits.recipients),
        cc=parse_mailboxes(cc, "cc", most=limits.recipients),
        bcc=parse_mailboxes(bcc, "bcc", most=limits.recipients),
        from_=parse_mailbox(from_, "from") if from_ else None,
        sender=parse_mailbox(sender, "sender") if sender else None,
        reply_to=parse_mailboxes(reply_to, "reply_to", most=limits.recipients),
        **content,
    )
