"""Codes of letters in a relay's words: found and masked in any case, with anything between that is no letter or digit.

Pure. `redaction` calls it, and has the same for codes of digits.
"""

import re
import unicodedata
from collections.abc import Sequence

LONG_CODE = re.compile(r"(?<![^\W_])[2-9A-HJ-NP-Z]{4}(?:[ -]?[2-9A-HJ-NP-Z]{4}){2}(?![^\W_])")
"""A text that may be a code of twelve letters, as a mail shows it or without dashes."""

_HEX = re.compile(r"[0-9A-F]{8,}")
_FEWEST = 3  # letters of a code whose end the relay cut off
_CUT_OFF = (1, 2)
_NO_WORD = {octet: None for octet in range(128) if not chr(octet).isalnum()}


def of_letters(codes: Sequence[str]) -> list[str]:
    """Return those of the codes that are no numbers."""
    # fast path: nearly all codes are numbers, 1 us a mail; held to the full path by tests/smtp/test_letter_codes.py
    return [] if "".join(codes).isdecimal() else [code for code in codes if not code.isdecimal()]


def shows_letters(text: str, codes: Sequence[str]) -> bool:
    """Whether the text shows one of the codes, plain or in hexadecimal."""
    wanted = of_letters(codes)
    if not wanted:
        return False
    letters = _letters_of(text)
    return any(code in reading for reading in (letters, *_from_hex(letters)) for code in wanted)


def without_letters(text: str, codes: Sequence[str], mask: str) -> str:
    """Put the mask in place of each code, and of one whose last letters are cut off where the text ends."""
    wanted = of_letters(codes)
    before = ""
    while wanted and text != before:  # the text around a mask may be a code by itself
        before = text
        for code in wanted:
            text = _masked(text, code, mask)
    return _without_beginning(text, wanted, mask)


def mask_code(text: str, signs: str, places: Sequence[int], code: str, mask: str) -> str:
    """Mask a code wherever it stands among the signs of a text, with what stands between them; `places` are theirs."""
    kept, end = "", 0
    found = signs.find(code)
    while found >= 0:
        first, last = places[found], places[found + len(code) - 1]
        if first >= end:
            kept += text[end:first] + mask
        end = last + 1
        found = signs.find(code, found + 1)
    return kept + text[end:]


def _masked(text: str, code: str, mask: str) -> str:
    letters = _letters_of(text)
    return mask_code(text, letters, _places_of(text), code, mask) if code in letters else text


def _without_beginning(text: str, codes: Sequence[str], mask: str) -> str:
    letters = _letters_of(text) if codes else ""
    for code in codes:
        for count in (len(code) - fewer for fewer in _CUT_OFF):
            if count >= _FEWEST and letters.endswith(code[:count]):
                places = _places_of(text)
                first = places[-count]
                if not text[first - 1 : first].isalnum():
                    return text[:first] + mask + text[places[-1] + 1 :]
    return text


def _letters_of(text: str) -> str:
    """Return the letters and digits of a text, as codes have them."""
    # fast path: nearly all words are ASCII, 20 times as fast; held to the full path by tests/smtp/test_letter_codes.py
    if text.isascii():
        return text.upper().translate(_NO_WORD)
    return "".join([_plain(character) for character in text if character.isalnum()])


def _places_of(text: str) -> list[int]:
    """Return the place of each of the letters and digits of a text."""
    return [place for place, character in enumerate(text) if character.isalnum()]


def _plain(character: str) -> str:
    """Return a letter or digit in upper case and ASCII; a question mark for what no code can have."""
    plain = unicodedata.normalize("NFKC", character).upper()
    if plain.isdecimal() and not plain.isascii():
        plain = str(unicodedata.decimal(plain[0]))
    return plain if len(plain) == 1 and plain.isascii() else "?"


def _from_hex(letters: str) -> list[str]:
    """Return what runs of hexadecimal digits say, wherever an octet begins."""
    found = []
    for run in _HEX.findall(letters):
        for start in (0, 1):
            end = len(run) - (len(run) - start) % 2
            decoded = bytes.fromhex(run[start:end]).decode("latin-1")
            found.append(_letters_of(decoded))
    return found
