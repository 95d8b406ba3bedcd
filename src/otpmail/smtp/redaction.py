"""A relay's words as they may be kept, logged and told: one short, printable line without secrets. No I/O.

Relays quote what they refuse. Secrets are the credentials of the connection and the code that a mail carries, plainly
or in an encoding that mail and SMTP use.
"""

import html
import re
import sys
import unicodedata
from base64 import b64encode
from binascii import a2b_base64, a2b_qp
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from string import ascii_letters
from string import digits as ascii_digits
from urllib.parse import quote

from otpmail.smtp.letter_codes import LONG_CODE, mask_code, of_letters, shows_letters, without_letters

MAX_TEXT = 500
"""Characters of a line at most."""

LONG = 2 << 10
"""Characters of a text that are read for it."""

MASK = "***"
WITHHELD = "(not shown, since these words hold the code in an encoded form)"

_SHORTEST = 4  # characters of a secret that is masked inside a word, and of a form in base64
_PIECE = 8  # characters of a credential that are masked also where the rest of it was cut off
_BASE64 = f"{ascii_letters}{ascii_digits}+/"
_LONG_WORD = re.compile(rf"\S{{{_PIECE},}}")
_LINE_ENDS = str.maketrans("\r\n\t", "   ")

_DIGITS = re.compile(r"\d(?:[\W_]*+\d)*+")  # with anything but letters between them
_NUMBER = re.compile(r"\d(?:[ -]?\d){3,}")
_HEX = r"([0-9A-Fa-f]{2})"
_ESCAPE = re.compile(
    rf"[%=]{_HEX}|\\x{_HEX}|\b0x{_HEX}\b|\\u([0-9A-Fa-f]{{4}})|\\U([0-9A-Fa-f]{{8}})|\\[ux]\{{([0-9A-Fa-f]{{1,6}})\}}"
    r"|\bU\+([0-9A-Fa-f]{4,6})\b|\\([0-3][0-7]{2})|\\[nrt]"
)
_TAG = re.compile(r"<[^<>]*+>")
_ENCODED_WORD = re.compile(r"=\?[^?\s]{1,40}\?([BbQq])\?([^?\s]*)\?=(?:\s+(?==\?))?")  # RFC 2047, 2
_DIGITS_IN_BASE64 = re.compile("[MNO][DTjz]")  # in each form of three digits or more
_BASE64_WORD = re.compile(r"[A-Za-z0-9+/]{10,}")
_TEXT = re.compile(r"[\0\t\n\r -~]{6,}")  # of what was decoded: ASCII, also in UTF-16
_MARKS_OF_ESCAPES = re.compile(r"[%=\\&<]|0x|U\+")


def clean(text: str) -> str:
    """Return the text on one line: line ends become spaces, other characters that do not print question marks."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else "?" for c in text.translate(_LINE_ENDS)])


def cut(text: str) -> str:
    """Return the text, or its beginning with a mark of the cut, in MAX_TEXT characters at most."""
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 3]}..."


class Redactor:
    """Makes lines without secrets.

    `forms` are what credentials look like in a text, `answers` what a client sends to AUTH: see `of_credentials`. Codes
    come with each text that may quote them; `recent` are those of the last mails on the connection.
    """

    __slots__ = ("_pieces", "forms", "recent")

    def __init__(self, forms: tuple[str, ...] = (), answers: tuple[str, ...] = ()) -> None:
        self.forms = forms
        self._pieces = "\0".join((*forms, *answers))
        self.recent: Collection[str] = ()

    def remembering(self, recent: Collection[str]) -> "Redactor":
        """Return a redactor with the same credentials, for a connection whose `recent` codes are no other's."""
        other = Redactor()
        other.forms, other._pieces, other.recent = self.forms, self._pieces, recent
        return other

    def __repr__(self) -> str:
        return f"<Redactor {len(self.forms)} forms>"

    @classmethod
    def of_credentials(cls, user: str, secret: str, more: Iterable[str] = ()) -> "Redactor":
        """Return the redactor of a connection that signs in with `user` and `secret`, a password or a token.

        A text in base64 shows the secret by the same characters, whatever stands around it. So these find the answers
        to AUTH PLAIN, LOGIN and XOAUTH2. CRAM-MD5 and LOGIN begin with the user. The relay may quote a part of an
        answer, or break it into lines. `more` are answers by other mechanisms.
        """
        if not secret:
            return cls()
        plain = (secret, quote(secret, safe=""), html.escape(secret))
        encoded = [form for form in (*_in_base64(secret), next(_in_base64(user))) if len(form) >= _SHORTEST]
        answers = f"\0{user}\0{secret}", f"user={user}\1auth=Bearer {secret}\1\1", user, secret, *more
        return cls(tuple(dict.fromkeys((*plain, *encoded))), tuple(next(_in_base64(answer)) for answer in answers))

    def line(self, text: str, codes: Iterable[str] = (), *, masks_numbers: bool = False) -> str:
        """Return the text without secrets, on one line of MAX_TEXT characters at most.

        It is without `codes` and the recent ones, too. `masks_numbers` is for where the codes of earlier mails are not
        known. It takes out every number of four digits or more, and all that may be a long code.
        """
        is_long = len(text) > LONG
        redacted = clean(text[:LONG])
        if self.forms:
            redacted = self._without_credentials(redacted)
        redacted = _without_codes(redacted, tuple(dict.fromkeys((*codes, *self.recent))))
        if masks_numbers:
            redacted = LONG_CODE.sub(MASK, _NUMBER.sub(MASK, redacted))
        # A secret may have been cut in two at LONG, which shows only where nearly all before it was masked.
        return MASK if is_long and len(redacted) <= MAX_TEXT else cut(redacted.strip())

    def _without_credentials(self, text: str) -> str:
        for form in self.forms:
            if form in text:
                text = _without_form(text, form)
        return _LONG_WORD.sub(self._without_pieces, text)

    def _without_pieces(self, match: re.Match[str]) -> str:
        """Mask a long word that holds a piece of a credential: the relay may have cut the rest off."""
        word = match[0]
        for start in range(len(word) - _PIECE + 1):
            if word[start : start + _PIECE] in self._pieces:
                return MASK
        return word


NO_SECRETS = Redactor()


def _in_base64(secret: str) -> Iterator[str]:
    """Yield the characters that show the secret in a text in base64, for each of the three places it may stand at."""
    octets = secret.encode("utf-8", "surrogateescape")
    for before in range(3):
        encoded = b64encode(bytes(before) + octets).decode()
        yield encoded[-(-8 * before // 6) : 8 * (before + len(octets)) // 6]


def _without_form(text: str, form: str) -> str:
    """Mask a credential, with the whole of what is encoded around it; a very short one only as a word."""
    if len(form) < _SHORTEST:
        return re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", MASK, text)
    first, *others = text.split(form)
    rests = [other.lstrip(_BASE64).removeprefix("=").removeprefix("=") for other in others]
    # The characters between two of them may belong to what is encoded around either.
    parts = [part.rstrip(_BASE64) for part in (first, *rests[:-1])]
    return MASK.join((*parts, rests[-1]))


# Codes.


def shows(text: str, codes: Iterable[str]) -> bool:
    """Whether a code stands in the text: its digits in their order, with anything but letters between; or its letters.

    Letters and digits of the latter have anything else between them.
    """
    codes = tuple(codes)
    numbers = list(_numbers(text))
    return any(code in number for code in codes for number in numbers) or shows_letters(text, codes)


def _numbers(text: str) -> Iterator[str]:
    """Yield the digits of each run of digits and what stands between them."""
    for run in _DIGITS.findall(text):
        yield _decimal(filter(str.isdecimal, run))


def _without_codes(text: str, codes: Sequence[str]) -> str:
    """Mask each code wherever its digits stand in their order, and withhold a text that shows one once decoded."""
    if not codes:
        return text
    text = without_letters(text, codes, MASK)
    number, before = _decimal(filter(str.isdecimal, text)), ""
    while before != number:  # the text around a mask may be a code by itself
        before = number
        for code in codes:
            for form in (code, code.encode().hex()) if "3" in number else (code,):
                if form in number:
                    text = _DIGITS.sub(partial(_masked, form), text)
                    number = _decimal(filter(str.isdecimal, text))
    text = _without_beginning(text, codes)
    return WITHHELD if _shows_encoded(text, codes) else text


def _shows_encoded(text: str, codes: Sequence[str]) -> bool:
    """Whether the text shows one of the codes once decoded. It is decoded once: a session may have many in flight."""
    joined = "".join(text.split())
    in_base64 = codes if _DIGITS_IN_BASE64.search(joined) else of_letters(codes)
    if any(form in joined for code in in_base64 for form in _in_base64(code)) or shows_letters(text, codes):
        return True
    if any(_shows_decoded(decoded, codes) for decoded in _decoded_words(joined)):
        return True
    if text.isascii() and not _MARKS_OF_ESCAPES.search(text):
        return False
    readings = list(_readings(text))
    numbers = [number for reading in readings for number in _numbers(reading)]
    shown = any(code in number for code in codes for number in numbers)
    return shown or any(shows_letters(reading, codes) for reading in readings)


def _decoded_words(joined: str) -> Iterator[str]:
    """Yield what is readable in long words as base64. A line may have been cut anywhere."""
    for word in _BASE64_WORD.findall(joined):
        for start in range(4):
            rest = word[start : len(word) - ((len(word) - start) % 4 == 1)]
            yield from _TEXT.findall(a2b_base64(rest + "=" * (-len(rest) % 4)).decode("latin-1"))


def _shows_decoded(text: str, codes: Sequence[str]) -> bool:
    """Whether a text that was in base64 shows one of the codes: in UTF-16, or in base64 once more."""
    joined = "".join(text.split())
    if shows(text, codes) or any(form in joined for code in codes for form in _in_base64(code)):
        return True
    letters = of_letters(codes)  # with dashes, so that their own base64 does not find them
    return bool(letters) and any(shows_letters(word, letters) for word in _decoded_words(joined))


def _without_beginning(text: str, codes: Sequence[str]) -> str:
    """Mask a code without its last one or two digits where the text ends so: the relay may have cut these off."""
    end = len(text)
    while end and not text[end - 1].isalnum():
        end -= 1
    start = end
    while start and text[start - 1].isdecimal():
        start -= 1
    number = _decimal(text[start:end])
    is_cut = number and any(len(number) >= max(3, len(code) - 2) and code.startswith(number) for code in codes)
    return text[:start] + MASK + text[end:] if is_cut else text


def _masked(code: str, match: re.Match[str]) -> str:
    """Mask the code in a run of digits and what stands between them."""
    run = match[0]
    places = [place for place, character in enumerate(run) if character.isdecimal()]
    if len(places) < len(code):
        return run
    return mask_code(run, _decimal(run[place] for place in places), places, code, MASK)


def _decimal(characters: Iterable[str]) -> str:
    """Digits of any script as ASCII."""
    return "".join([str(unicodedata.decimal(digit)) for digit in characters])


def _readings(text: str) -> Iterator[str]:
    """Yield the text with what mail, URLs and HTML may have encoded in it decoded."""
    unescaped = _ESCAPE.sub(_unescaped, text)
    yield unescaped
    yield _ESCAPE.sub(_unescaped, unescaped)  # %2534
    for reading in (text, unescaped, html.unescape(text)):
        yield html.unescape(_TAG.sub("", reading))
        yield html.unescape(reading)
    yield _ENCODED_WORD.sub(_decoded_word, text)
    yield unicodedata.normalize("NFKC", text)


def _unescaped(match: re.Match[str]) -> str:
    *in_hex, octal = match.groups()
    if octal:
        return chr(int(octal, 8))
    number = int(next(filter(None, in_hex), "20"), 16)
    return chr(number) if number <= sys.maxunicode else " "


def _decoded_word(match: re.Match[str]) -> str:
    encoding, encoded = match.groups()
    with suppress(ValueError):
        octets = a2b_base64(encoded) if encoding in "Bb" else a2b_qp(encoded, header=True)
        return octets.decode("utf-8", "replace")
    return match[0]
