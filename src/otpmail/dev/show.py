"""Mails as the inbox shows them, as values of JSON."""

import re
import unicodedata
from email.message import EmailMessage
from typing import Any

from otpmail.compose.shown_code import code_values
from otpmail.dev.bodies import body_of
from otpmail.dev.inbox import InboxMail
from otpmail.dev.relay import CAUGHT

_MOST_SOURCE = 1 << 20  # octets that the page shows
_TOO_DEEP = b"The parts of this mail are nested too deeply to be shown. They are in the source of the mail around it.\n"
_MOST_NAME = 80  # characters; a file system takes 255 octets


def summary(mail: InboxMail) -> dict[str, Any]:
    """Return a mail in short: its line of the list. Text and HTML are in its details alone."""
    caught = mail.caught
    return {
        "id": mail.number,
        "time": mail.time,
        "from": caught.sender,
        "to": [*caught.recipients, *(address for address, _ in caught.refused)],
        "refused": [{"address": address, "reply": reply} for address, reply in caught.refused],
        "subject": mail.subject,
        "code": mail.code,
        "preview": mail.preview,
        "files": len(mail.files),
        "read": mail.is_read,
    }


def details(mail: InboxMail) -> dict[str, Any]:
    """Return all that the page shows of a mail."""
    caught, message = mail.caught, mail.caught.message
    replies = [*((address, CAUGHT) for address in caught.recipients), *caught.refused]
    return summary(mail) | {
        "shown_code": code_values(mail.code)["code"],
        "text": body_of(message, "plain"),
        "html": body_of(message, "html"),
        "headers": [[name, str(value)] for name, value in message.items()],
        "octets": len(caught.content),
        "source": caught.content[:_MOST_SOURCE].decode("utf-8", "replace"),
        "attachments": [
            {"name": part.get_filename() or "", "type": part.get_content_type(), "octets": len(octets_of(part))}
            for part in message.iter_attachments()
        ],
        "recipients": [{"address": address, "reply": reply} for address, reply in replies],
    }


def octets_of(part: EmailMessage) -> bytes:
    """Return the octets of a part; those of a mail in a mail as they are there, unless it is nested too deeply."""
    payload = part.get_payload(decode=True)
    if isinstance(payload, bytes):
        return payload
    try:
        return bytes(part)
    except RecursionError:
        return _TOO_DEEP


def file_name(name: str) -> str:
    """Return the name under which a browser keeps a file: without folders, and nothing that hides how it ends."""
    plain = "".join("_" if unicodedata.category(each)[0] in "CZ" and each != " " else each for each in name)
    last = re.split(r"[/\\]", plain)[-1].strip(" .")
    return last[-_MOST_NAME:] or "attachment"
