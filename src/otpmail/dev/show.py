"""What the inbox shows of a mail, as values of JSON."""

from email.message import EmailMessage
from typing import Any

from otpmail.dev.bodies import body_of
from otpmail.dev.inbox import InboxMail
from otpmail.dev.relay import CAUGHT

_MOST_SOURCE = 1 << 20  # octets that the page shows


def summary(mail: InboxMail) -> dict[str, Any]:
    """Return a mail in short, with its text and its code."""
    message = mail.message
    return {
        "id": mail.number,
        "time": mail.time,
        "from": mail.caught.sender,
        "to": list(mail.caught.recipients),
        "subject": str(message.get("Subject", "")),
        "code": mail.code,
        "text": body_of(message, "plain"),
        "html": body_of(message, "html"),
    }


def details(mail: InboxMail) -> dict[str, Any]:
    """Return all that the page shows of a mail."""
    return summary(mail) | {
        "headers": [[name, str(value)] for name, value in mail.message.items()],
        "source": mail.caught.content[:_MOST_SOURCE].decode("utf-8", "replace"),
        "attachments": [
            {"name": part.get_filename() or "", "type": part.get_content_type(), "octets": len(octets_of(part))}
            for part in mail.message.iter_attachments()
        ],
        "recipients": [{"address": address, "reply": CAUGHT} for address in mail.caught.recipients],
    }


def octets_of(part: EmailMessage) -> bytes:
    """Return the octets of a part; those of a mail in a mail as they are there."""
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else bytes(part)
