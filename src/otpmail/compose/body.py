"""What a mail says: text, HTML or both, as MIME entities (RFC 2045, RFC 2046), written here rather than by `email`.

A body is lines. It reaches the reader as it was given, but for its line ends: each CRLF, lone CR and lone LF becomes a
CRLF, and a last line without an end gets one, whatever the encoding. Files beside it are `compose.message`'s.
"""

import re
from binascii import b2a_base64, b2a_qp
from hashlib import blake2b

LINE = 1000  # RFC 5322, 2.1.1: 998 octets and the CRLF
_CR = ord("\r")
_BASE64_LINE = 76  # RFC 2045, 6.8, as for quoted-printable in 6.7
# `binascii` escapes a blank at the end of a line in place: of one that was full, it makes one of 77 octets.
_TOO_LONG = re.compile(rb"=(?:20|09)\r\n(?<=[^\n]{74}.{3}\r\n)")
_AS_THEY_ARE = bytes(octet for octet in b"\t\r\n" + bytes(range(32, 127)) if octet != ord("="))  # RFC 2045, 6.7


def written(text: str, html: str, *, message_id: str) -> bytes:
    """A body's own headers, the empty line, and its content, which ends with CRLF.

    With both it is multipart/alternative, the HTML last (RFC 2046, 5.1.4); with neither it is an empty line of text.
    """
    if not html:
        return _entity(b"plain", text)
    if not text:
        return _entity(b"html", html)
    plain, rich = _entity(b"plain", text), _entity(b"html", html)
    mark = _boundary(message_id, plain, rich)
    return (
        b'Content-Type: multipart/alternative; boundary="%b"\r\n\r\n' % mark
        + b"--%b\r\n%b\r\n--%b\r\n%b\r\n--%b--\r\n" % (mark, plain, mark, rich, mark)
    )


def _entity(subtype: bytes, text: str) -> bytes:
    """One body with its headers. It is called UTF-8 even where it is ASCII: a reader sees one charset, always.

    It is never sent as 8bit: no mail depends on the relay's 8BITMIME.
    """
    octets = canonical(text.encode())
    if text.isascii() and (len(octets) <= LINE or _fits(octets)):
        encoding = b"7bit"
    # Quoted-printable takes two octets more for each that it escapes, base64 one for every three.
    elif len(octets.translate(None, _AS_THEY_ARE)) * 6 <= len(octets):
        encoding, octets = b"quoted-printable", _TOO_LONG.sub(lambda blank: b"=\r\n" + blank[0], b2a_qp(octets))
    else:
        encoding, octets = b"base64", _base64(octets)
    return b'Content-Type: text/%b; charset="utf-8"\r\nContent-Transfer-Encoding: %b\r\n\r\n%b' % (
        subtype,
        encoding,
        octets,
    )


def canonical(octets: bytes) -> bytes:
    """Lines that end with CRLF, the last one included."""
    if _CR in octets:
        octets = octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not octets.endswith(b"\n"):
        octets += b"\n"
    return octets.replace(b"\n", b"\r\n")


def _fits(octets: bytes) -> bool:
    """Whether every line is short enough to go as it is. Steps over many lines at a time."""
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


def _boundary(message_id: str, *parts: bytes) -> bytes:
    """A line that no part holds. The "=_" alone keeps it out of quoted-printable and base64 (RFC 2045, 6.7)."""
    attempt = 0
    while True:
        mark = b"=_" + blake2b(f"{attempt} {message_id}".encode(), digest_size=12).hexdigest().encode()
        if not any(mark in part for part in parts):
            return mark
        attempt += 1
