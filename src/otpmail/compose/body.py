"""The content of a mail: text, HTML and files as MIME entities (RFC 2045, RFC 2046), written without `email`.

A text reaches its reader unchanged except for line ends: CRLF, lone CR and lone LF all become CRLF, and a last line
without an end gets one, whatever the encoding. A file is always base64, so every octet of it arrives.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain

from otpmail.compose import transfer
from otpmail.compose.draft import Attachment
from otpmail.compose.headers import content_type, disposition

Pieces = Iterable[bytes]
"""Octets in their order, each made when it is asked for, in a millisecond at most. Some are empty: they took time."""

_TEXT = b'Content-Type: text/%b; charset="utf-8"\r\nContent-Transfer-Encoding: %b\r\n\r\n%b'
_END_OF_PART = (b"\r\n",)
_DEFAULT_TYPE = "application/octet-stream"  # RFC 2046, 4.5.1
_DEFAULT_NAME = "attachment"


def write_content(text: str, html: str, attachments: Sequence[Attachment], *, message_id: str) -> Pieces:
    """Write the content's own headers, the empty line, and the content, which ends with CRLF.

    Text and HTML are alternatives, the HTML last (RFC 2046, 5.1.4). Inline files stand beside the HTML, or beside the
    text where there is no HTML (RFC 2387); other files follow (RFC 2046, 5.1.3).
    """
    content = _entity(b"html", html) if html else _entity(b"plain", text)
    files: list[Pieces] = []
    if attachments:
        inline = [_file(attachment) for attachment in attachments if attachment.content_id]
        files = [_file(attachment) for attachment in attachments if not attachment.content_id]
        if inline:
            root = b'related; type="text/html"' if html else b'related; type="text/plain"'
            content = _multipart(root, [content, *inline], f"0 {message_id}")
    if html and text:
        content = _multipart(b"alternative", [_entity(b"plain", text), content], f"1 {message_id}")
    return _multipart(b"mixed", [content, *files], f"2 {message_id}") if files else content


def _entity(subtype: bytes, text: str) -> Pieces:
    """Write a text with its headers.

    Its charset is UTF-8 also where it is ASCII, so that readers see one charset. It is never 8bit, so that no mail
    depends on the relay's 8BITMIME.
    """
    if len(text) > transfer.TEXT_SLICE:
        return _large_entity(subtype, text)
    octets = transfer.canonical(text.encode())
    if transfer.is_plain(octets):
        return (_TEXT % (subtype, transfer.SEVEN_BIT, octets),)
    encoding = transfer.shorter(transfer.count_escaped(octets), len(octets))
    return (_TEXT % (subtype, encoding, transfer.encode(octets, encoding)),)


def _large_entity(subtype: bytes, text: str) -> Iterator[bytes]:
    """Write a text with its headers, slice by slice: they are read once to choose the encoding, and then encoded."""
    plain, escaped, size = True, 0, 0
    for octets in transfer.canonical_slices(text):
        plain = plain and transfer.is_plain(octets)
        escaped += transfer.count_escaped(octets)
        size += len(octets)
        yield b""
    encoding = transfer.SEVEN_BIT if plain else transfer.shorter(escaped, size)
    yield _TEXT % (subtype, encoding, b"")
    yield from transfer.encode_slices(transfer.canonical_slices(text), encoding)


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
    return chain((head.encode(),), transfer.base64_slices(attachment.content))


def _multipart(subtype: bytes, parts: Sequence[Pieces], seed: str) -> Pieces:
    """Write parts, each with its own headers, as one entity (RFC 2046, 5.1.1).

    No part holds its boundary: see `transfer.DELIMITER`. The boundaries of one mail differ by their `seed`.
    """
    mark = b"=_" + blake2b(seed.encode(), digest_size=12).hexdigest().encode()
    delimiter = (b"--%b\r\n" % mark,)
    pieces: list[Pieces] = [(b'Content-Type: multipart/%b; boundary="%b"\r\n\r\n' % (subtype, mark),)]
    for part in parts:
        pieces += (delimiter, part, _END_OF_PART)
    return chain.from_iterable([*pieces, (b"--%b--\r\n" % mark,)])
