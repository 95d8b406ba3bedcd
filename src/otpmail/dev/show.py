"""What the inbox shows of a mail, as values of JSON."""

from typing import Any

from otpmail.dev.inbox import InboxMail

_ONE_BODY = ("plain", "html")


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
        "text": body_of(mail, "plain"),
        "html": body_of(mail, "html"),
    }


def body_of(mail: InboxMail, kind: str) -> str:
    """Return the body of a kind, `plain` or `html`; empty where there is none."""
    part = mail.message.get_body((kind,))
    if part is None:
        return ""
    try:
        return str(part.get_content())
    except (LookupError, ValueError):  # a charset that Python does not know
        return part.get_payload(decode=True).decode("utf-8", "replace")  # type: ignore[union-attr]
