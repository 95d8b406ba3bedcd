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
_UNSEEN = ("iframe", "noembed", "noframes", "script", "style", "title")
_ENDS = {name: re.compile(rf"</{name}(?=[ \t\n\f\r/>])", re.IGNORECASE | re.ASCII) for name in _UNSEEN}

# Markup, as the HTML standard has it (13.2.5): the next thing that is no text. A branch that begins matches to its
# end, or to that of the HTML, and gives nothing back. So each character is read once or twice, also by hostile HTML.
_MARKUP = re.compile(
    r"""
    < (?:
      /? (?P<name>[a-z][^ \t\n\f\r/>]*+)
      (?:
        [ \t\n\f\r/]++
        | [^ \t\n\f\r/>] [^ \t\n\f\r/>=]*+                                  # the name of an attribute
          (?: [ \t\n\f\r]*+ = [ \t\n\f\r]*+
              (?: "[^"]*+(?:"|\Z) | '[^']*+(?:'|\Z) | (?!["'])[^ \t\n\f\r>]*+ )
          )?+
      )*+
      (?:>|\Z)
      | !-- (?: -?> | .*?(?:--!?>|\Z) )
      | (?:[!?]|/(?=.)) [^>]*+ (?:>|\Z)                                    # read as a comment
    )
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII | re.DOTALL,
)
_DOCTYPE = re.compile(r"(?:\s|<!--.*?-->|<\?[^>]*>)*+<!doctype[^>]*>", re.IGNORECASE | re.DOTALL)
_FRAME = re.compile(
    r"(?P<kept><!--.*?(?:-->|\Z))|<iframe(?=[ \t\n\f\r/>]).*?(?:</iframe(?=[ \t\n\f\r/>])[^>]*>|\Z)",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
_DIALS = re.compile(r"<(?:link|i?frame)(?=[ \t\n\f\r/>])", re.IGNORECASE | re.ASCII)
_DECIMAL = re.compile(r"&#0*([0-9]+)")


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
    plain = body_of(message, "plain")
    return plain if plain.strip() else text_of_html(body_of(message, "html")) or plain


def text_of_html(html: str) -> str:
    """Return the visible text between the tags. Takes a time that grows with the length alone."""
    return "".join(_seen(html))


def _seen(html: str) -> Iterator[str]:
    position = 0
    while found := _MARKUP.search(html, position):
        yield _unescaped(html[position : found.start()])
        position = found.end()
        name = (found["name"] or "").lower()
        if name and name not in _INLINE:
            yield " "
        if name in _ENDS and html[found.start() + 1] != "/":
            end = _ENDS[name].search(html, position)
            position = end.start() if end else len(html)
    yield _unescaped(html[position:])


def _unescaped(text: str) -> str:
    """Return a text with its characters for their references. Python reads no number of more than 4,300 digits."""
    return unescape(_DECIMAL.sub(lambda found: f"&#{found[1][:8]}", text)) if "&" in text else text


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


def for_frame(html: str) -> str:
    """Return HTML for a frame which shows nothing but a mail: links open in a tab of their own, and it dials nobody.

    No policy of a page holds Chromium back from dialling the host of `<link rel=preconnect>` or of a frame. So such an
    element is replaced by one of metadata, which shows nothing. Scripts are off, so none can write another. A frame
    goes with its content, which is raw text and no markup.
    """
    html = _FRAME.sub(lambda found: found["kept"] or "", html)
    html = _DIALS.sub("<meta", html)
    doctype = _DOCTYPE.match(html)
    start = doctype.end() if doctype else 0
    return f'{html[:start]}<base target="_blank">{html[start:]}'
