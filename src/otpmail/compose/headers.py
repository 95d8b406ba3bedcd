"""Header fields as text, ready for the wire: folded, or encoded where their characters need it.

The standard library's are not used. It decodes what looks like an encoded word in a value, line ends included, so that
a subject could add a header. Here a value is text, and what looks like an encoded word is itself encoded.
"""

import re
from binascii import b2a_base64
from collections.abc import Sequence
from urllib.parse import quote

from otpmail.address import Address
from otpmail.compose.media_type import MediaType

_LINE = 78  # RFC 5322, 2.1.1: characters that a line should have at most, without its CRLF
_LONGEST_WORD = 900  # leaves room for any field's name in the 998 that a line can have
_ENCODED_OCTETS = 45  # 60 characters of base64, so that an encoded word has at most 75 (RFC 2047, 2)
_ENCODED_NAME_OCTETS = 39  # 64 characters, so that a line holds `name="` too
_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/^_`{|}~-]+)*")  # RFC 5322, 3.2.3: atoms
_PLAIN_FILENAME = re.compile(r"(?=.{1,60}\Z)[A-Za-z0-9._(),+-]+(?: [A-Za-z0-9._(),+-]+)*")
_SECTION = 60  # characters, so that a parameter has a line of its own
_NOT_ESCAPED = "!#$&+^`{|}"  # by RFC 2231, 7, beside those that `quote` never escapes


def unstructured(name: str, value: str) -> str:
    """A field whose value is any text (RFC 5322, 3.2.5), with its CRLF."""
    if not _is_literal(value):
        return _fold(name, _encoded_words(value))
    whole = f"{name}: {value}\r\n"
    return whole if len(whole) <= _LINE + len("\r\n") else _fold(name, value.split(" "))


def mailboxes(name: str, addresses: Sequence[Address]) -> str:
    """A field that lists mailboxes (RFC 5322, 3.6.3), with its CRLF."""
    if len(addresses) == 1 and not addresses[0].name:
        return f"{name}: {addresses[0].spec}\r\n"
    words: list[str] = []
    for place, address in enumerate(addresses, 1):
        *before, last = _mailbox(address)
        words += (*before, last if place == len(addresses) else f"{last},")
    return _fold(name, words)


def disposition(kind: str, filename: str) -> str:
    """A Content-Disposition field (RFC 2183) with a file name, with its CRLF.

    A short name of letters, digits and few signs is quoted. Any other is percent-encoded, a long one in sections
    (RFC 2231, 3 and 4). No character is divided, since some readers decode each section by itself.
    """
    if _PLAIN_FILENAME.fullmatch(filename):
        return _fold("Content-Disposition", [f"{kind};", f'filename="{filename}"'])
    sections = _sections(f"utf-8''{quote(filename, safe=_NOT_ESCAPED)}")
    if len(sections) == 1:
        return _fold("Content-Disposition", [f"{kind};", f"filename*={sections[0]}"])
    *before, last = [f"filename*{number}*={section}" for number, section in enumerate(sections)]
    return _fold("Content-Disposition", [f"{kind};", *[f"{parameter};" for parameter in before], last])


def content_type(kind: MediaType, filename: str) -> str:
    """A Content-Type field (RFC 2045, 5) for a file, with its CRLF.

    A name that `disposition` encodes stands here too, in encoded words. They mean nothing in a parameter (RFC 2047, 5),
    but readers that lack RFC 2231 look for them: see docs/decisions/040-file-names-are-written-twice.md.
    """
    *before, last = kind.words()
    words = [f"{word};" for word in before]
    if not filename or _PLAIN_FILENAME.fullmatch(filename) or kind.get("name"):
        return _fold("Content-Type", [*words, last])
    first, *others = _encoded_words(filename, _ENCODED_NAME_OCTETS)
    words += [f"{last};", f'name="{first}', *others]
    words[-1] += '"'
    return _fold("Content-Type", words)


def _sections(value: str) -> list[str]:
    """A percent-encoded value in pieces of a line, none of which divides a character."""
    pieces, start = [], 0
    while len(value) - start > _SECTION:
        end = start + _SECTION
        if "%" in value[end - 2 : end]:  # within the octet that it begins
            end = value.rindex("%", start, end)
        while value[end] == "%" and value[end + 1] in "89AB":  # within a character: the octet goes on with it
            end -= len("%XX")
        pieces.append(value[start:end])
        start = end
    return [*pieces, value[start:]]


def _mailbox(address: Address) -> list[str]:
    name = address.name
    if not name:
        return [address.spec]
    if not _is_literal(name):
        shown = _encoded_words(name)
    elif _PHRASE.fullmatch(name):
        shown = name.split(" ")
    else:
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        shown = [f'"{quoted}"']
    return [*shown, f"<{address.spec}>"]


def _is_literal(value: str) -> bool:
    """Whether a reader gets `value` back from its own characters, wherever it is folded at a space."""
    return (
        value.isascii()
        and value.isprintable()
        and "=?" not in value
        and "  " not in value
        and value == value.strip(" ")
        and (len(value) <= _LONGEST_WORD or max(map(len, value.split(" "))) <= _LONGEST_WORD)
    )


def _encoded_words(value: str, most: int = _ENCODED_OCTETS) -> list[str]:
    """`value` as encoded words (RFC 2047) of `most` octets, a multiple of 3, cut between characters.

    A reader joins them without the spaces between.
    """
    octets = value.encode()
    words, start = [], 0
    while start < len(octets):
        end = start + most
        while end < len(octets) and octets[end] & 0xC0 == 0x80:  # within a character
            end -= 1
        words.append(f"=?utf-8?b?{b2a_base64(octets[start:end], newline=False).decode()}?=")
        start = end
    return words


def _fold(name: str, words: Sequence[str]) -> str:
    """Put words after the field's name, on lines of 78 characters where the words allow it."""
    whole = f"{name}: {' '.join(words)}"
    if len(whole) <= _LINE:
        return f"{whole}\r\n"
    line, folded = f"{name}:", ""
    for place, word in enumerate(words):
        # Never directly after the name: a line of nothing but a name is legal, but some readers refuse it.
        if place and len(line) + 1 + len(word) > _LINE:
            folded += f"{line}\r\n"
            line = ""
        line += f" {word}"
    return f"{folded}{line}\r\n"
