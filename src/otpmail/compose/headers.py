"""Header fields as text, ready for the wire: folded, or encoded where their characters need it.

The standard library's are not used. It decodes what looks like an encoded word in a value, line ends included, so that
a subject could add a header. Here a value is text, and what looks like an encoded word is itself encoded.
"""

import re
from binascii import b2a_base64
from collections.abc import Sequence
from urllib.parse import quote

from otpmail.address import Address
from otpmail.compose.draft import Draft
from otpmail.compose.media_type import MediaType
from otpmail.compose.structured import is_structured, squeezed, words_of

_LINE = 78  # RFC 5322, 2.1.1: characters that a line should have at most, without its CRLF
_LONGEST_LINE = 998  # and those that it can have
_LONGEST_WORD = 900  # leaves room for any field's name in them
_ENCODED_LINE = 76  # RFC 2047, 2: of a field with encoded words
_ENCODED_OCTETS = 45  # 60 characters of base64, so that an encoded word has at most 75 (RFC 2047, 2)
_FRAME = len("=?utf-8?b??=")
_LEAST_OCTETS = 6  # in groups of 3, so that the longest character is in one word
_ENCODED_NAME_OCTETS = 39  # 64 characters, so that a line holds `name="` too
_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/^_`{|}~-]+)*")  # RFC 5322, 3.2.3: atoms
# How an encoded word begins, to readers that are not strict. Where none ends behind it, the text is no encoded word.
_ENCODED_WORD = re.compile(r"=\?[^?]*+\?[^?]++\?")
_PLAIN_FILENAME = re.compile(r"(?=.{1,60}\Z)[A-Za-z0-9._(),+-]+(?: [A-Za-z0-9._(),+-]+)*")
_SECTION = 60  # characters, so that a parameter has a line of its own
_NOT_ESCAPED = "!#$&+^`{|}"  # by RFC 2231, 7, beside those that `quote` never escapes


def unstructured(name: str, value: str) -> str:
    """A field whose value is any text (RFC 5322, 3.2.5), with its CRLF."""
    if not _is_literal(value):
        return _fold(name, _encoded_words(value, before=len(name)), _ENCODED_LINE)
    whole = f"{name}: {value}\r\n"
    return whole if len(whole) <= _LINE + len("\r\n") else _fold(name, value.split(" "))


def extra(name: str, value: str) -> str:
    """A field of the caller's, with its CRLF."""
    return structured(name, value) if is_structured(name) else unstructured(name, value)


def structured(name: str, value: str) -> str:
    """A field whose value has a structure and no `structured.fault`, with its CRLF: folded, but never encoded."""
    value = squeezed(value)
    whole = f"{name}: {value}\r\n"
    return whole if len(whole) <= _LINE + len("\r\n") else _fold_parts(name, words_of(f" {value}"), _LINE)


def mailboxes(name: str, addresses: Sequence[Address]) -> str:
    """A field that lists mailboxes (RFC 5322, 3.6.3), with its CRLF."""
    if len(addresses) == 1 and not (address := addresses[0]).name:
        spec = address.spec
        if '"' in spec:
            spec = _shown_alone(spec)
        return f"{name}: {spec}\r\n"
    words: list[str] = []
    for place, address in enumerate(addresses, 1):
        *shown, last = _mailbox(address, before=len(name) if place == 1 else 0)
        words += (*shown, last if place == len(addresses) else f"{last},")
    has_encoded = any(word.startswith("=?") for word in words)
    return _fold(name, words, _ENCODED_LINE if has_encoded else _LINE)


def as_ascii(addresses: Sequence[Address]) -> tuple[Address, ...]:
    """Addresses for a header in ASCII: one that is not becomes an empty group with its text (RFC 6857, 3)."""
    return tuple(
        [Address("", f"{a.name} <{a.spec}>" if a.name else a.spec) if a.needs_smtputf8 else a for a in addresses]
    )


def disposition(kind: str, filename: str) -> str:
    """A Content-Disposition field (RFC 2183) with a file name, with its CRLF.

    A short name of letters, digits and few signs is quoted. Any other is percent-encoded, a long one in sections
    (RFC 2231, 3 and 4). No character is divided, since some readers decode each section by itself. Without a name the
    field is there for a file whose type has it.
    """
    if not filename:
        return f"Content-Disposition: {kind}\r\n"
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
    if not filename or _PLAIN_FILENAME.fullmatch(filename) or kind.has("name"):
        return _fold("Content-Type", [*words, last])
    first, *others = _encoded_words(filename, most=_ENCODED_NAME_OCTETS)
    words += [f"{last};", f'name="{first}', *others]
    words[-1] += '"'
    return _fold("Content-Type", words, _ENCODED_LINE)


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


def _shown_alone(spec: str) -> str:
    """An address without a name, in angle brackets where a reader could take its quotes for those of a name."""
    return f"<{spec}>" if spec.startswith('"') else spec


def _mailbox(address: Address, *, before: int) -> list[str]:
    name = address.name
    if not name:
        return [_shown_alone(address.spec)]
    if not _is_literal(name):
        shown = _encoded_words(name, before=before)
    elif _PHRASE.fullmatch(name):
        shown = name.split(" ")
    else:
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        shown = [f'"{quoted}"']
    return [*shown, f"<{address.spec}>" if address.spec else ":;"]


def _is_literal(value: str) -> bool:
    """Whether a reader gets `value` back from its own characters, wherever it is folded at a space."""
    return (
        value.isascii()
        and value.isprintable()
        and ("=?" not in value or not _holds_encoded_word(value))
        and "  " not in value
        and value == value.strip(" ")
        and (len(value) <= _LONGEST_WORD or max(map(len, value.split(" "))) <= _LONGEST_WORD)
    )


def _holds_encoded_word(value: str) -> bool:
    begun = _ENCODED_WORD.search(value)
    return begun is not None and value.find("?=", begun.end()) >= 0


def _encoded_words(value: str, *, before: int = 0, most: int = _ENCODED_OCTETS) -> list[str]:
    """`value` as encoded words (RFC 2047) of `most` octets, a multiple of 3, cut between characters.

    The first is shorter where it follows a field's name, of so many characters, on a line of 76. A name too long for
    that has a line of its own. A reader joins the words without the spaces between.
    """
    octets = value.encode()
    room = (_ENCODED_LINE - before - len(": ") - _FRAME) // 4 * 3 if before else most
    size = min(room, most) if room >= _LEAST_OCTETS else most
    words, start = [], 0
    while start < len(octets):
        end = start + size
        while end < len(octets) and octets[end] & 0xC0 == 0x80:  # within a character
            end -= 1
        words.append(f"=?utf-8?b?{b2a_base64(octets[start:end], newline=False).decode()}?=")
        start, size = end, most
    return words


def _fold(name: str, words: Sequence[str], most: int = _LINE) -> str:
    """Put words after the field's name, on lines of so many characters where the words allow it."""
    return _fold_parts(name, [f" {word}" for word in words], most)


def _fold_parts(name: str, parts: Sequence[str], most: int) -> str:
    """Put parts after the field's name, each with the blank before it; where it has none, a new line adds one."""
    whole = f"{name}:{''.join(parts)}"
    if len(whole) <= most:
        return f"{whole}\r\n"
    first = parts[0]
    line, folded = f"{name}:{first}", ""
    # Only where it must, directly after the name: a line of nothing but a name is legal, but some readers refuse it.
    if len(line) > (most if first.startswith(" =?") else _LONGEST_LINE):
        line, folded = first, f"{name}:\r\n"
    for part in parts[1:]:
        if len(line) + len(part) > most:
            folded += f"{line}\r\n"
            line = ""
        line += part if line or part.startswith(" ") else f" {part}"
    return f"{folded}{line}\r\n"


def dedup_field(name: str, draft: Draft, mail_id: str) -> str:
    """The field that lets a relay drop a repeated mail, unless the draft has it already."""
    is_written = any(other.lower() == name.lower() for other, _ in draft.headers)
    return "" if is_written else f"{name}: {mail_id}\r\n"
