"""Addresses that behave as the mailbox they name, such as `550@fail.example`: failures on demand. Pure."""

import re
from collections.abc import Mapping
from types import MappingProxyType

DOMAIN = "fail.example"

_REPLIES: Mapping[int, str] = MappingProxyType(
    {
        421: "4.3.2 the system takes no mail now",
        450: "4.2.1 the mailbox is busy",
        451: "4.7.1 greylisted, come back later",
        452: "4.2.2 the mailbox is full",
        550: "5.1.1 there is no such mailbox",
        551: "5.1.6 the mailbox has moved",
        552: "5.2.2 the mailbox is full for good",
        553: "5.1.3 the mailbox's name is not allowed",
        554: "5.7.1 refused by policy",
    }
)
_ADDRESS = re.compile(rf"([45][0-9]{{2}})(?:\+(?P<tag>.*))?@{re.escape(DOMAIN)}", re.IGNORECASE)
_SUPPRESSED = "suppressed"


def reply_for(code: int) -> str:
    """Return a reply of an SMTP server with that code, and words that fit it."""
    return f"{code} {_REPLIES.get(code, f'{code // 100}.0.0 as it was asked to')}"


def reply_to(address: str) -> str | None:
    """Return the reply to RCPT for an address that names one, None for any other."""
    match = _ADDRESS.fullmatch(address)
    return None if match is None else reply_for(int(match[1]))


def is_spared(address: str, _mail_id: str = "") -> bool:
    """Whether no reply suppresses the address: it is to fail each time. One with the tag `suppressed` is suppressed."""
    match = _ADDRESS.fullmatch(address)
    return match is not None and (match["tag"] or "").lower() != _SUPPRESSED
