"""The names of header fields: which are valid, and which the service or relays write themselves."""

import re

MAX_HEADER_NAME = 64

_HEADER_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322, 3.6.8

# The service writes these, or relays on the way do, or they name further recipients. "Auto-Submitted" is not among
# them: a caller may say that its mail is automatic.
OWN_HEADERS = frozenset(
    {
        *("from", "sender", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id", "mime-version"),
        *("return-path", "received", "dkim-signature", "resent-to", "resent-cc", "resent-bcc", "resent-from"),
        *("resent-sender", "resent-date", "resent-message-id", "delivered-to", "apparently-to"),
    }
)


def is_header_name(name: str) -> bool:
    """Whether this is the name of a header field, in MAX_HEADER_NAME characters (RFC 5322, 3.6.8)."""
    return len(name) <= MAX_HEADER_NAME and _HEADER_NAME.fullmatch(name) is not None


def is_own(name: str) -> bool:
    """Whether others must not write it: the service does, or a relay."""
    lowered = name.lower()
    return lowered in OWN_HEADERS or lowered.startswith("content-")
