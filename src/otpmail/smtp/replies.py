"""What a relay's replies mean, as pure functions."""

import re

from otpmail.model import RecipientResult

CLOSING = 421  # "service not available, closing transmission channel" (RFC 5321, 4.2.3): the mail was not taken
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")
_MAX_TEXT = 500


def result(address: str, code: int, text: str) -> RecipientResult:
    """The reply as one recipient's result: enhanced code (RFC 2034) and text apart, the text kept short."""
    lines = text.splitlines()
    match = _ENHANCED.match(text)
    enhanced = match[1] if match else ""
    said = " ".join(filter(None, (_ENHANCED.sub("", line, count=1).strip() for line in lines)))
    shown = "".join(c if c.isprintable() else "?" for c in said)
    return RecipientResult(address, code, enhanced, shown[:_MAX_TEXT])
