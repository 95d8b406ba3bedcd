"""Header fields as bytes go: text folded or encoded, names quoted or encoded, addresses as they are.

Not the standard library's: it decodes what looks like an encoded word in a value it is given, line ends included, so a
subject could add a header. Here a value is text, and what looks like an encoded word is itself encoded.
"""

import re
from binascii import b2a_base64
from collections.abc import Sequence

from otpmail.address import Address

LINE = 78  # RFC 5322, 2.1.1: what a line should have at most, its CRLF left out
_LONGEST_WORD = 900  # leaves room for any field's name in the 998 that a line must not pass
_ENCODED_OCTETS = 45  # 60 characters of base64, so that an encoded word stays under its 75 (RFC 2047, 2)
_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/^_`{|}~-]+)*")  # RFC 5322, 3.2.3: atoms


def unstructured(name: str, value: str) -> str:
    """A field whose value is any text (RFC 5322, 3.2.5), with its CRLF."""
    if not _is_literal(value):
        return _fold(name, _encoded_words(value))
    whole = f"{name}: {value}\r\n"
    return whole if len(whole) <= LINE + len("\r\n") else _fold(name, value.split(" "))


def mailboxes(name: str, addresses: Sequence[Address]) -> str:
    """A field that lists mailboxes (RFC 5322, 3.6.3), with its CRLF."""
    if len(addresses) == 1 and not addresses[0].name:  # what most mails have
        return f"{name}: {addresses[0].spec}\r\n"
    words: list[str] = []
    for place, address in enumerate(addresses, 1):
        *before, last = _mailbox(address)
        words += (*before, last if place == len(addresses) else f"{last},")
    return _fold(name, words)


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
    """Whether a reader gets `value` back from its characters as they are, wherever it is folded at a space."""
    return (
        value.isascii()
        and value.isprintable()
        and "=?" not in value
        and "  " not in value
        and value == value.strip(" ")
        and (len(value) <= _LONGEST_WORD or max(map(len, value.split(" "))) <= _LONGEST_WORD)
    )


def _encoded_words(value: str) -> list[str]:
    """`value` as encoded words (RFC 2047), cut between characters: a reader joins them without the spaces between."""
    octets = value.encode()
    words, start = [], 0
    while start < len(octets):
        end = start + _ENCODED_OCTETS
        while end < len(octets) and octets[end] & 0xC0 == 0x80:  # within a character
            end -= 1
        words.append(f"=?utf-8?b?{b2a_base64(octets[start:end], newline=False).decode()}?=")
        start = end
    return words


def _fold(name: str, words: Sequence[str]) -> str:
    """Words behind the field's name, on lines of 78 where the words allow it."""
    whole = f"{name}: {' '.join(words)}"
    if len(whole) <= LINE:
        return f"{whole}\r\n"
    line, folded = f"{name}:", ""
    for place, word in enumerate(words):
        # Never right behind the name: a line of nothing but a name is legal, and more than some readers bear.
        if place and len(line) + 1 + len(word) > LINE:
            folded += f"{line}\r\n"
            line = ""
        line += f" {word}"
    return f"{folded}{line}\r\n"
