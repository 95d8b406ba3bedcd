"""The lines of the log about what was learned of a relay."""

import logging

from otpmail.events import (
    ChunkingDisabled,
    Event,
    MessageLimitDropped,
    MessageLimitLearned,
    RecipientLimitDropped,
    RecipientLimitLearned,
    ResetRefused,
)
from otpmail.telemetry.counts import mails


def learned(event: Event) -> tuple[int, str, str] | None:
    """Return the level, the stable name and the sentence for such an event, None for another one."""
    line = None
    match event:
        case ChunkingDisabled(relay):
            text = f"{relay} does not read past a chunk that it rejects; mails go by DATA, not BDAT"
            line = logging.WARNING, "chunks-unsafe", text
        case ResetRefused(relay):
            line = logging.WARNING, "reset-refused", f"{relay} refuses RSET; it gets one mail at a time, by DATA"
        case RecipientLimitLearned(relay, limit):
            text = f"{relay} takes {limit} recipients at once; a mail for more goes in several transactions"
            line = logging.INFO, "recipient-limit-learned", text
        case RecipientLimitDropped(relay):
            line = logging.INFO, "recipient-limit-dropped", f"{relay} takes more recipients at once than before"
        case MessageLimitLearned(relay, limit):
            text = f"{relay} closes a connection after {mails(limit)}; each is replaced before that"
            line = logging.INFO, "message-limit-learned", text
        case MessageLimitDropped(relay, limit):
            text = f"{relay} took more than {mails(limit)} on a connection; that limit is dropped"
            line = logging.INFO, "message-limit-dropped", text
    return line
