"""The content of a mail: text, HTML and files as MIME entities (RFC 2045, RFC 2046), written without `email`.

A text reaches its reader unchanged except for line ends: CRLF, lone CR and lone LF all become CRLF, and a last line
without an end gets one, whatever the encoding. A file is always base64, so every octet of it arrives.
"""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import chain

from otpmail.compose.draft import Attachment
from otpmail.compose.headers import content_type, disposition
from otpmail.compose.transfer import Pieces, base64_slices, text_entity

_END_OF_PART = (b"\r\n",)
_DEFAULT_TYPE = "application/octet-stream"  # RFC 2046, 4.5.1
_DEFAULT_NAME = "attachment"


def write_content(text: str, html: str, attachments: Sequence[Attachment], *, message_id: str) -> Pieces:
    """Write the content's own headers, the empty line, and the content, which ends with CRLF.

    Text and HTML are alternatives, the HTML last (RFC 2046, 5.1.4). Inline files stand beside the HTML, or beside the
    text where there is no HTML (RFC 2387); other files follow (RFC 2046, 5.1.3).
    """
    content = text_entity(b"html", html) if html else text_entity(b"plain", text)
    files: list[Pieces] = []
    if attachments:
        inline = [_file(attachment) for attachment in attachments if attachment.content_id]
        files = [_file(attachment) for attachment in attachments if not attachment.content_id]
        if inline:
            root = b'related; type="text/html"' if html else b'related; type="text/plain"'
            content = _multipart(root, [content, *inline], f"0 {message_id}")
    if html and text:
        content = _multipart(b"alternative", [text_entity(b"plain", text), content], f"1 {message_id}")
    return _multipart(b"mixed", [content, *files], f"2 {message_id}") if files else content


def _file(attachment: Attachment) -> Pieces:
    """Write a file with its headers."""
    filename = attachment.filename or _DEFAULT_NAME
    content_id = f"Content-ID: <{attachment.content_id}>\r\n" if attachment.content_id else ""
    head = (
        f"{content_type((attachment.content_type or _DEFAULT_TYPE).lower(), filename)}"
        "Content-Transfer-Encoding: base64\r\n"
        f"{disposition('inline' if content_id else 'attachment', filename)}"
        f"{content_id}\r\n"  # never folded: the HTML's `cid:` finds only the literal text (RFC 2392)
    )
    return chain((head.encode(),), base64_slices(attachment.content))


def _multipart(subtype: bytes, parts: Sequence[Pieces], seed: str) -> Pieces:
    """Write parts, each with its own headers, as one entity (RFC 2046, 5.1.1).

    No part holds its boundary: see `compose.transfer`. The boundaries of one mail differ by their `seed`.
    """
    mark = b"=_" + blake2b(seed.encode(), digest_size=12).hexdigest().encode()
    delimiter = (b"--%b\r\n" % mark,)
    pieces: list[Pieces] = [(b'Content-Type: multipart/%b; boundary="%b"\r\n\r\n' % (subtype, mark),)]
    for part in parts:
        pieces += (delimiter, part, _END_OF_PART)
    return chain.from_iterable([*pieces, (b"--%b--\r\n" % mark,)])
