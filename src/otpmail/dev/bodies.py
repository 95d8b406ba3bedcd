"""The text or HTML of a mail as it came, whatever charset it names. Pure."""

from email.message import EmailMessage, Message


def body_of(message: EmailMessage, *kinds: str) -> str:
    """Return the body of the first kind there is, of `plain` and `html`; empty where there is none."""
    part: Message | None = message.get_body(kinds)
    if part is None:
        return ""
    try:
        return str(part.get_content())  # type: ignore[attr-defined]  # typeshed's type of get_body is too wide
    except (LookupError, ValueError):  # a charset that Python does not know
        payload = part.get_payload(decode=True)
        return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""
