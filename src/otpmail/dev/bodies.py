"""The text or HTML of a mail as it came, whatever charset it names. Pure."""

import base64
import re
from collections.abc import Iterator
from email.message import EmailMessage, Message
from html import unescape
from urllib.parse import unquote

_CID = re.compile(r"""cid:([^\s"'<>()]{1,998})""", re.IGNORECASE)
_INLINE = frozenset(
    ("a", "abbr", "b", "bdi", "code", "em", "font", "i", "mark", "s", "small", "span", "strong", "u", "wbr")
)
_UNSEEN = frozenset({"head", "script", "style", "title"})


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


def text_of(message: EmailMessage) -> str:
    """Return the text of a mail; of one that has HTML alone, what a reader sees of that."""
    return body_of(message, "plain") or text_of_html(body_of(message, "html"))


def text_of_html(html: str) -> str:
    """Return the text between the tags, as far as it is seen. Takes a time that grows with the length alone."""
    return unescape("".join(_seen(html)))


def _seen(html: str) -> Iterator[str]:
    first, *rest = html.split("<")
    yield first
    hidden = ""
    for piece in rest:
        tag, _, text = piece.partition(">")
        name = tag.split(maxsplit=1)[0].lower() if tag[:1].strip() else ""
        if hidden:
            if hidden == "!--" and "-->" in piece:
                text = piece.partition("-->")[2]
            elif name != f"/{hidden}":
                continue
            hidden = ""
        elif piece.startswith("!--"):
            text = piece.partition("-->")[2]
            hidden = "" if "-->" in piece else "!--"
        elif name in _UNSEEN:
            hidden, text = name, ""
        yield text if name.removeprefix("/") in _INLINE else f" {text}"


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
