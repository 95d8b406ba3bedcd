"""The text or HTML of a mail as it came, whatever charset it names. Pure."""

import base64
import re
from email.message import EmailMessage, Message
from urllib.parse import unquote

_CID = re.compile(r"""cid:([^\s"'<>()]{1,998})""", re.IGNORECASE)


def body_of(message: EmailMessage, *kinds: str) -> str:
    """Return the body of the first kind there is, of `plain` and `html`; empty without any."""
    part: Message | None = message.get_body(kinds)
    if part is None:
        return ""
    try:
        return str(part.get_content())  # type: ignore[attr-defined]  # typeshed's type of get_body is too wide
    except (LookupError, ValueError):  # a charset that Python does not know
        payload = part.get_payload(decode=True)
        return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""


def html_with_images(message: EmailMessage) -> str:
    """Return the HTML with the images that came with the mail in it, where it names them by `cid:` (RFC 2392)."""
    images = {
        str(part["Content-ID"]).strip().removeprefix("<").removesuffix(">"): part
        for part in message.walk()
        if part["Content-ID"] and part.get_content_maintype() == "image"
    }

    def put(match: re.Match[str]) -> str:
        """Return a data URL of an image, and the text itself for another part."""
        part = images.get(unquote(match[1]))
        payload = part.get_payload(decode=True) if part is not None else None
        if part is None or not isinstance(payload, bytes):
            return match[0]
        return f"data:{part.get_content_type()};base64,{base64.b64encode(payload).decode()}"

    return _CID.sub(put, body_of(message, "html"))
