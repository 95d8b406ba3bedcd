"""Texts as MIME entities, and the transfer encodings of texts and files: 7bit, quoted-printable, base64 (RFC 2045, 6).

A large part is written slice by slice, each in half a millisecond. A text is cut behind a line end, or within a line
that is longer than a slice.
"""

import re
from binascii import b2a_base64, b2a_qp
from collections.abc import Generator, Iterable, Iterator
from functools import cache
from typing import TypeVar

from otpmail.compose.draft import OCTETS_OF_A_LINE
from otpmail.cooperate import Steps

TEXT_SLICE = 64 << 10
"""Characters of a slice."""

SEVEN_BIT, QUOTED_PRINTABLE, BASE64 = b"7bit", b"quoted-printable", b"base64"
DELIMITER = b"--=_"
"""How a line begins that divides parts (RFC 2046, 5.1.1). No text in any encoding holds this."""

Pieces = Iterable[bytes]
"""Octets in their order, each made when it is asked for, in a millisecond at most. Some are empty: they took time."""

T = TypeVar("T")

_HEAD = b'Content-Type: text/%b; charset="utf-8"\r\nContent-Transfer-Encoding: %b\r\n\r\n'

_LINES = 1024  # of a slice of a file
_LINE = 1000  # RFC 5322, 2.1.1: 998 octets and the CRLF
_ENCODED_LINE = 76  # RFC 2045, 6.7 and 6.8
_CR, _EQUALS = ord("\r"), ord("=")
# `binascii` escapes a blank at the end of a line without a new line: a full line of 76 then has 77 or 78 octets.
_TOO_LONG = re.compile(rb"=(?:20|09)\r\n(?<=[^\n]{74}.{3}\r\n)")
# RFC 2045, 2.7 and RFC 5322, 3.5: other control characters are encoded, since some relays change or refuse them.
_CLEAR = b"\t\r\n\f" + bytes(range(32, 127))
_NOT_ESCAPED = bytes(octet for octet in b"\t\r\n" + bytes(range(32, 127)) if octet != ord("="))  # RFC 2045, 6.7


def text_entity(subtype: bytes, text: str) -> Pieces:
    """Write a text with its headers.

    Its charset is UTF-8 also where it is ASCII, so that readers see one charset. It is never 8bit, so that no mail
    depends on the relay's 8BITMIME.
    """
    if len(text) > TEXT_SLICE:
        return _large_entity(subtype, text)
    octets = canonical(text.encode())
    if is_plain(octets):
        return _head(subtype, SEVEN_BIT), octets
    encoding, octets = encoded(octets)
    return _head(subtype, encoding), octets


@cache
def _head(subtype: bytes, encoding: bytes) -> bytes:
    return _HEAD % (subtype, encoding)


def encoded(octets: bytes) -> tuple[bytes, bytes]:
    """The shortest encoding that a small canonical text may have, and the text in it."""
    if is_plain(octets):
        return SEVEN_BIT, octets
    encoding = _shorter(_count_escaped(octets), len(octets))
    return encoding, b"".join(encode_slices((octets,), encoding))


def _large_entity(subtype: bytes, text: str) -> Iterator[bytes]:
    """Write a text with its headers, slice by slice: they are read once to choose the encoding, and then encoded."""
    plain, escaped, size = True, 0, 0
    for octets in canonical_slices(text):
        plain = plain and is_plain(octets)
        escaped += _count_escaped(octets)
        size += len(octets)
        yield b""
    encoding = SEVEN_BIT if plain else _shorter(escaped, size)
    yield _head(subtype, encoding)
    yield from encode_slices(canonical_slices(text), encoding)


def paced(steps: Steps[T]) -> Generator[bytes, None, T]:
    """Run steps as a part of pieces: each step is an empty one."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        yield b""


def canonical(octets: bytes) -> bytes:
    """End every line, the last one included, with CRLF."""
    octets = crlf(octets) if _CR in octets else octets.replace(b"\n", b"\r\n")
    return octets if octets.endswith(b"\n") else octets + b"\r\n"


def crlf(octets: bytes) -> bytes:
    """End every line with CRLF, but for a last one without an end."""
    return octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def canonical_slices(text: str, size: int = TEXT_SLICE) -> Iterator[bytes]:
    """Yield `canonical` of a text in UTF-8, in slices of at most `size` characters."""
    start = 0
    while len(text) - start > size:
        end = _cut(text, start, start + size)
        yield crlf(text[start:end].encode())
        start = end
    if start < len(text) or not text:
        yield canonical(text[start:].encode())


def is_plain(octets: bytes) -> bool:
    """Whether a canonical text may be 7bit: visible ASCII, in lines that relays take, and none that divides parts."""
    if octets.translate(None, _CLEAR) or (len(octets) > _LINE and not lines_fit(octets)):
        return False
    # fast path: most texts have no equals sign, and one octet is found sooner than four, 0.4 us; held to the full path
    # by tests/compose/test_body.py
    return _EQUALS not in octets or DELIMITER not in octets


def lines_fit(octets: bytes) -> bool:
    """Whether every line of a canonical text has at most 998 octets."""
    start = 0  # each step goes over as many lines as _LINE octets hold
    while len(octets) - start > _LINE:
        end = octets.rfind(b"\n", start, start + _LINE)
        if end < 0:
            return False
        start = end + 1
    return True


def encode_slices(slices: Iterable[bytes], encoding: bytes) -> Iterator[bytes]:
    """Encode a canonical text slice by slice: together they are the text encoded, with the same lines but for cuts."""
    if encoding is SEVEN_BIT:
        yield from slices
    elif encoding is QUOTED_PRINTABLE:
        for octets in slices:
            yield _quoted_printable(octets) if octets.endswith(b"\n") else _quoted_with_soft_break(octets)
    else:
        rest = b""
        for octets in slices:
            unwritten = rest + octets
            whole = len(unwritten) - len(unwritten) % OCTETS_OF_A_LINE
            yield base64_lines(unwritten[:whole])
            rest = unwritten[whole:]
        yield base64_lines(rest)


def base64_lines(octets: bytes) -> bytes:
    """Base64 in lines of 76 characters, each with its CRLF (RFC 2045, 6.8)."""
    encoded = b2a_base64(octets, newline=False)
    lines = [encoded[start : start + _ENCODED_LINE] for start in range(0, len(encoded), _ENCODED_LINE)]
    return b"\r\n".join([*lines, b""])


def base64_slices(octets: bytes, lines: int = _LINES) -> Iterator[bytes]:
    """Yield `base64_lines` of a file, so many lines at once."""
    size = lines * OCTETS_OF_A_LINE
    for start in range(0, len(octets), size):
        yield base64_lines(octets[start : start + size])


def _cut(text: str, start: int, end: int) -> int:
    """Where a slice ends that may go to `end`: behind its last line end, or there if it has none."""
    line_end = max(text.rfind("\n", start, end), text.rfind("\r", start, end)) + 1
    if not line_end:
        return end
    return line_end + text.startswith("\n", line_end) if text[line_end - 1] == "\r" else line_end


def _count_escaped(octets: bytes) -> int:
    """How many octets of a text quoted-printable escapes."""
    return len(octets.translate(None, _NOT_ESCAPED))


def _shorter(escaped: int, size: int) -> bytes:
    """The shorter encoding for a text of `size` octets that is not plain, of which so many are escaped."""
    # Quoted-printable adds two octets for each that it escapes, base64 one for every three.
    return QUOTED_PRINTABLE if escaped * 6 <= size else BASE64


def _quoted_printable(octets: bytes) -> bytes:
    return _TOO_LONG.sub(lambda blank: b"=\r\n" + blank[0], b2a_qp(octets))


def _quoted_with_soft_break(octets: bytes) -> bytes:
    """Encode a slice that ends within a line, and break that line there without ending it."""
    encoded = _quoted_printable(octets + b"\r\n")[:-2]  # `b2a_qp` writes CRLF only where it finds one
    if len(encoded) - encoded.rfind(b"\n") <= _ENCODED_LINE:
        return encoded + b"=\r\n"
    character = 3 if encoded[-3:-2] == b"=" else 1
    return b"%b=\r\n%b=\r\n" % (encoded[:-character], encoded[-character:])
