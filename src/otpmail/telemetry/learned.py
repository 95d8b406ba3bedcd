"""The lines of the log about what was learned of a relay."""

import logging

from otpmail.counts import counted, mails
from otpmail.events import (
    ChunkingDisabled,
    ConnectionLimitDropped,
    ConnectionLimitLearned,
    Event,
    IdleTimeDropped,
    IdleTimeLearned,
    MessageLimitDropped,
    MessageLimitLearned,
    RateLowered,
    RateRestored,
    RecipientLimitDropped,
    RecipientLimitLearned,
    ResetRefused,
)


def learned(event: Event) -> tuple[int, str, str] | None:
    """Return the level, the stable name and the sentence for such an event, None for another one."""
    line = _pressure(event)
    match event:
        case ChunkingDisabled(relay):
            text = f"{relay} does not read past a chunk that it rejects, or ends the connection; mails go by DATA"
            line = logging.WARNING, "chunks-unsafe", text
        case ResetRefused(relay):
            line = logging.WARNING, "reset-refused", f"{relay} refuses RSET; it gets one mail at a time, by DATA"
        case RecipientLimitLearned(relay, limit):
            text = f"{relay} takes {counted(limit, 'recipient')} at once; a mail for more goes in several transactions"
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


def _pressure(event: Event) -> tuple[int, str, str] | None:
    """Return the same for what a relay takes at once, and for how long it lets a connection be idle."""
    line = None
    match event:
        case ConnectionLimitLearned(relay, limit, wanted):
            text = f"{relay} takes {limit} of {counted(wanted, 'connection')}; one more is tried now and then"
            line = logging.WARNING if limit < wanted else logging.INFO, "connection-limit-learned", text
        case ConnectionLimitDropped(relay, limit):
            text = f"{relay} takes more than {counted(limit, 'connection')} now"
            line = logging.INFO, "connection-limit-dropped", text
        case RateLowered(relay, rate, again):
            text = f"{relay} refuses mails as too fast; it is sent {rate:.3g} a second now, and slowly more again"
            line = logging.INFO if again else logging.WARNING, "rate-lowered", text
        case RateRestored(relay):
            line = logging.INFO, "rate-restored", f"{relay} takes mails as fast as before"
        case IdleTimeLearned(relay, seconds):
            text = f"{relay} closes a connection after {seconds:.3g} s without a mail; idle ones are closed before"
            line = logging.INFO, "idle-time-learned", text
        case IdleTimeDropped(relay, seconds):
            text = f"{relay} let a connection be idle for longer than {seconds:.3g} s; that limit is dropped"
            line = logging.INFO, "idle-time-dropped", text
    return line
