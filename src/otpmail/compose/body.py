"""The content of a mail: text, HTML and files as MIME entities (RFC 2045, RFC 2046), written without `email`.

A text reaches its reader unchanged except for line ends. CRLF, lone CR and lone LF all become CRLF, and a last line
without an end gets one, whatever the encoding. A file is always base64, so every octet of it arrives. A mail as a file
never is, and its lines end as those of a text. So do those of a text that is an alternative.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import chain

from otpmail.compose.attachment import EMBEDDED, Attachment
from otpmail.compose.charset import UNKNOWN, charset_of
from otpmail.compose.embedded import Survey, embedded_slices, survey
from otpmail.compose.headers import content_type, disposition
from otpmail.compose.media_type import MediaType
from otpmail.compose.transfer import TEXT_SLICE, Pieces, base64_slices, canonical, encoded, paced, text_entity
from otpmail.values import frozen

_ALWAYS_UTF8 = ("text/calendar", "text/vcard")  # RFC 5545, 3.1.4; RFC 6350, 3.1
_END_OF_PART = (b"\r\n",)
_DEFAULT_NAME = "attachment"
_DEFAULT_MAIL_NAME = "message.eml"
_LEGIBLE = frozenset({("us-ascii", "us-ascii"), ("utf-8", "us-ascii"), ("utf-8", "utf-8")})  # as said, and as found
# Readers that know none of these show the last part, so they stand before the HTML; an invitation is the last.
_BEFORE_HTML = ("text/x-amp-html", "text/watch-html")


@frozen()
class _Frame:
    """The seed of the boundaries of one mail, and a further header of its multiparts."""

    seed: str
    header: str = ""

    def around(self, subtype: bytes, parts: Sequence[Pieces], number: int) -> Pieces:
        """Write parts as one entity; the `number` makes its boundary differ from the others of the mail."""
        return _multipart(subtype, parts, f"{number} {self.seed}", self.header.encode())


def write_content(text: str, html: str, attachments: Sequence[Attachment], *, message_id: str) -> Pieces:
    """Write the content's own headers, the empty line, and the content, which ends with CRLF.

    Text and HTML are alternatives, the HTML last (RFC 2046, 5.1.4), with further alternatives behind it. Inline files
    stand beside the HTML, or beside the text where there is no HTML (RFC 2387); other files follow (RFC 2046, 5.1.3).
    Raises InvalidArgument, when its octets are asked for, for a mail as a file that can't be one.
    """
    if not attachments:
        content = text_entity(b"html", html) if html else text_entity(b"plain", text)
        if not (html and text):
            return content
        return _multipart(b"alternative", (text_entity(b"plain", text), content), f"1 {message_id}")
    if any(attachment.media_type.name == EMBEDDED for attachment in attachments):
        return _with_embedded(text, html, attachments, message_id)
    return _write(text, html, attachments, {}, _Frame(message_id))


def _with_embedded(text: str, html: str, attachments: Sequence[Attachment], message_id: str) -> Iterator[bytes]:
    """Do as `write_content`, with mails among the files.

    They are read once before the first octet is written: to check them, and for boundaries that are in none of them.
    """
    surveys: dict[int, Survey] = {}
    for place, attachment in enumerate(attachments):
        if attachment.media_type.name == EMBEDDED:
            surveys[place] = yield from paced(survey(attachment.content, f"attachments[{place}].content"))
    # A boundary made of a digest of them stands in none of them.
    seed = " ".join([message_id, *[found.digest for found in surveys.values()]])
    is_8bit = any(found.is_8bit for found in surveys.values())
    header = "Content-Transfer-Encoding: 8bit\r\n" if is_8bit else ""  # RFC 2045, 6.4
    yield from _write(text, html, attachments, surveys, _Frame(seed, header))


def _write(
    text: str, html: str, attachments: Sequence[Attachment], surveys: Mapping[int, Survey], frame: _Frame
) -> Pieces:
    content = text_entity(b"html", html) if html else text_entity(b"plain", text)
    parts = [(attachment, _part(attachment, surveys.get(place))) for place, attachment in enumerate(attachments)]
    inline = [part for attachment, part in parts if attachment.content_id]
    if inline:
        root = b'related; type="text/html"' if html else b'related; type="text/plain"'
        content = frame.around(root, [content, *inline], 0)
    choices = [text_entity(b"plain", text)] if html and text else []
    choices += [part for attachment, part in parts if attachment.alternative and _is_before_html(attachment)]
    if text or html or inline or not any(attachment.alternative for attachment in attachments):
        choices.append(content)
    choices += [part for attachment, part in parts if attachment.alternative and not _is_before_html(attachment)]
    content = choices[0] if len(choices) == 1 else frame.around(b"alternative", choices, 1)
    files = [part for attachment, part in parts if not (attachment.content_id or attachment.alternative)]
    return frame.around(b"mixed", [content, *files], 2) if files else content


def _is_before_html(attachment: Attachment) -> bool:
    return attachment.media_type.name in _BEFORE_HTML


def _part(attachment: Attachment, found: Survey | None) -> Pieces:
    """Write a file with its headers."""
    kind = attachment.media_type
    if found is not None:
        head = _head(attachment, kind, b"8bit" if found.is_8bit else b"7bit", _DEFAULT_MAIL_NAME)
        return chain((head,), embedded_slices(attachment.content))
    if kind.name.startswith("text/") and (attachment.alternative or not kind.has("charset")):
        return _text_file(attachment, kind)
    return chain((_head(attachment, kind, b"base64", _DEFAULT_NAME),), base64_slices(attachment.content))


def _text_file(attachment: Attachment, kind: MediaType) -> Iterator[bytes]:
    """Write a file of text, whose charset is known once it has been read.

    A small alternative is written as the other texts are: some readers show an invitation in base64 as a file.
    """
    content = attachment.content
    charset = kind.get("charset").lower()
    found = yield from paced(charset_of(content))
    if not kind.has("charset"):
        # Also where a folded line divides a character, which the reader joins again (RFC 5545, 3.1).
        is_utf8 = found == UNKNOWN and kind.name in _ALWAYS_UTF8
        charset = "utf-8" if is_utf8 else found
        kind = MediaType(kind.name, (*kind.parameters, ("charset", charset)))
    is_legible = (charset, found) in _LEGIBLE and len(content) <= TEXT_SLICE and b"\0" not in content
    if attachment.alternative and is_legible:
        encoding, octets = encoded(canonical(content))
        yield _head(attachment, kind, encoding, _DEFAULT_NAME) + octets
    else:
        yield _head(attachment, kind, b"base64", _DEFAULT_NAME)
        yield from base64_slices(content)


def _head(attachment: Attachment, kind: MediaType, encoding: bytes, default_name: str) -> bytes:
    filename = attachment.filename or kind.get("name")
    is_named = bool(filename) or kind.has("name")
    if not (is_named or attachment.alternative):
        filename, is_named = default_name, True
    shown = "inline" if attachment.content_id or attachment.alternative else "attachment"
    # Never folded: the HTML's `cid:` finds only the literal text (RFC 2392).
    content_id = f"Content-ID: <{attachment.content_id}>\r\n" if attachment.content_id else ""
    return (
        f"{content_type(kind, filename)}"
        f"Content-Transfer-Encoding: {encoding.decode()}\r\n"
        f"{disposition(shown, filename) if is_named else ''}"
        f"{content_id}\r\n"
    ).encode()


def _multipart(subtype: bytes, parts: Sequence[Pieces], seed: str, header: bytes = b"") -> Pieces:
    """Write parts, each with its own headers, as one entity (RFC 2046, 5.1.1).

    No part holds its boundary: see `compose.transfer`. The boundaries of one mail differ by their `seed`.
    """
    mark = b"=_" + blake2b(seed.encode(), digest_size=12).hexdigest().encode()
    delimiter = (b"--%b\r\n" % mark,)
    pieces: list[Pieces] = [(b'Content-Type: multipart/%b; boundary="%b"\r\n%b\r\n' % (subtype, mark, header),)]
    for part in parts:
        pieces += (delimiter, part, _END_OF_PART)
    return chain.from_iterable([*pieces, (b"--%b--\r\n" % mark,)])
