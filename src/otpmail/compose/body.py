"""The content of a mail: text, HTML and files as MIME entities (RFC 2045, RFC 2046), written without `email`.

A text reaches its reader unchanged except for line ends: CRLF, lone CR and lone LF all become CRLF, and a last line
without an end gets one, whatever the encoding. A file is always base64, so every octet of it arrives.
"""

import re
from binascii import b2a_base64, b2a_qp
from collections.abc import Sequence
from hashlib import blake2b

from otpmail.compose.draft import Attachment
from otpmail.compose.headers import disposition

LINE = 1000  # RFC 5322, 2.1.1: 998 octets and the CRLF
_CR = ord("\r")
_BASE64_LINE = 76  # RFC 2045, 6.8, and 6.7 for quoted-printable
# `binascii` escapes a blank at the end of a line without a new line: a full line of 76 then has 77 or 78 octets.
_TOO_LONG = re.compile(rb"=(?:20|09)\r\n(?<=[^\n]{74}.{3}\r\n)")
_NOT_ESCAPED = bytes(octet for octet in b"\t\r\n" + bytes(range(32, 127)) if octet != ord("="))  # RFC 2045, 6.7
_DEFAULT_TYPE = "application/octet-stream"  # RFC 2046, 4.5.1
_DEFAULT_NAME = "attachment"


def write_content(text: str, html: str, attachments: Sequence[Attachment], *, message_id: str) -> bytes:
    """Write the content's own headers, the empty line, and the content, which ends with CRLF.

    Text and HTML are alternatives, the HTML last (RFC 2046, 5.1.4). Inline files stand beside the HTML, or beside the
    text where there is no HTML (RFC 2387); other files follow (RFC 2046, 5.1.3).
    """
    content = _entity(b"html", html) if html else _entity(b"plain", text)
    files: list[bytes] = []
    if attachments:
        inline = [_file(attachment) for attachment in attachments if attachment.content_id]
        files = [_file(attachment) for attachment in attachments if not attachment.content_id]
        if inline:
            root = b'related; type="text/html"' if html else b'related; type="text/plain"'
            content = _multipart(root, [content, *inline], message_id)
    if html and text:
        content = _multipart(b"alternative", [_entity(b"plain", text), content], message_id)
    return _multipart(b"mixed", [content, *files], message_id) if files else content


def canonical(octets: bytes) -> bytes:
    """End every line, the last one included, with CRLF."""
    if _CR in octets:
        octets = octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not octets.endswith(b"\n"):
        octets += b"\n"
    return octets.replace(b"\n", b"\r\n")


def _entity(subtype: bytes, text: str) -> bytes:
    """Write a text with its headers.

    Its charset is UTF-8 also where it is ASCII, so that readers see one charset. It is never 8bit, so that no mail
    depends on the relay's 8BITMIME.
    """
    octets = canonical(text.encode())
    if text.isascii() and (len(octets) <= LINE or _fits(octets)):
        encoding = b"7bit"
    # Quoted-printable adds two octets for each that it escapes, base64 one for every three.
    elif len(octets.translate(None, _NOT_ESCAPED)) * 6 <= len(octets):
        encoding, octets = b"quoted-printable", _TOO_LONG.sub(lambda blank: b"=\r\n" + blank[0], b2a_qp(octets))
    else:
        encoding, octets = b"base64", _base64(octets)
    return b'Content-Type: text/%b; charset="utf-8"\r\nContent-Transfer-Encoding: %b\r\n\r\n%b' % (
        subtype,
        encoding,
        octets,
    )


def _file(attachment: Attachment) -> bytes:
    """Write a file with its headers."""
    content_id = f"Content-ID: <{attachment.content_id}>\r\n" if attachment.content_id else ""
    head = (
        f"Content-Type: {(attachment.content_type or _DEFAULT_TYPE).lower()}\r\n"
        "Content-Transfer-Encoding: base64\r\n"
        f"{disposition('inline' if content_id else 'attachment', attachment.filename or _DEFAULT_NAME)}"
        f"{content_id}\r\n"  # never folded: the HTML's `cid:` finds only the literal text (RFC 2392)
    )
    return head.encode() + _base64(attachment.content)


def _multipart(subtype: bytes, parts: Sequence[bytes], message_id: str) -> bytes:
    """Write parts, each with its own headers, as one entity (RFC 2046, 5.1.1)."""
    mark = _boundary(message_id, parts)
    head = b'Content-Type: multipart/%b; boundary="%b"\r\n\r\n' % (subtype, mark)
    return b"".join([head, *[b"--%b\r\n%b\r\n" % (mark, part) for part in parts], b"--%b--\r\n" % mark])


def _fits(octets: bytes) -> bool:
    """Whether every line is at most LINE octets. A step goes over as many lines as LINE octets hold."""
    start = 0
    while len(octets) - start > LINE:
        end = octets.rfind(b"\n", start, start + LINE)
        if end < 0:
            return False
        start = end + 1
    return True


def _base64(octets: bytes) -> bytes:
    encoded = b2a_base64(octets, newline=False)
    lines = [encoded[start : start + _BASE64_LINE] for start in range(0, len(encoded), _BASE64_LINE)]
    return b"\r\n".join([*lines, b""])


def _boundary(message_id: str, parts: Sequence[bytes]) -> bytes:
    """A line that no part holds. Quoted-printable and base64 can't hold its "=_" (RFC 2045, 6.7)."""
    attempt = 0
    while True:
        mark = b"=_" + blake2b(f"{attempt} {message_id}".encode(), digest_size=12).hexdigest().encode()
        if not any(mark in part for part in parts):
            return mark
        attempt += 1
