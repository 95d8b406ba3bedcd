"""A relay's replies: read from the octets that arrive, and turned into the result of a recipient. No I/O."""

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import NamedTuple, cast

from otpmail.model import RecipientResult
from otpmail.smtp.redaction import LONG, MAX_TEXT, NO_SECRETS, WITHHELD, Redactor, shows

_REFUSES = 400
CLOSING = 421  # "service not available, closing transmission channel" (RFC 5321, 4.2.3): the mail was not taken
MAX_REPLY = 64 << 10  # octets of one reply with all its lines; RFC 5321, 4.5.3.1.5 has 512 a line
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*?))?\r?", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")
_SYNTAX = re.compile(rb"[45]\.5\.[12]\s")  # RFC 3463, 3.6: an invalid command, a syntax error
_USUAL_LINE = 128  # octets

# A text that shows a code other than by its digits in ASCII holds one of these. They are a mark of an escape, an octet
# that is not ASCII, or, in base64, the first two characters of a digit. That digit stands first in its group of three
# octets.
_HINT = re.compile(rb"[%=\\&<\x80-\xff]|[MNO]\s*[DTjz]|0x|U\+")
# Digits in base64 twice, or in UTF-16 before, show by their length alone. Relays quote mails where they refuse them.
_DEEP_HINT = re.compile(rb"[A-Za-z0-9+/]{10}")
_FEWEST = 4  # digits of a code
_NO_WORD = bytes(octet for octet in range(256) if not chr(octet).isalnum())
_NO_DIGITS = bytes(octet for octet in range(256) if not chr(octet).isdecimal())


class Reply(NamedTuple):
    """One reply (RFC 5321, 4.2): its code, and the text of its lines as they came, joined by line feeds.

    The text may hold secrets: `result` and `describe` make of it what may be kept, logged and told.
    """

    code: int
    text: bytes

    def __repr__(self) -> str:
        return f"<Reply {self.code}>"


# fast path: a relay answers MAIL, RCPT and RSET in the same words, 7 us a mail; held to the full path by
# tests/smtp/test_replies.py
@lru_cache(maxsize=256)
def _usual(line: bytes) -> Reply | None:
    """The reply on this line, if it is a whole one: three digits, a space, text."""
    if line[3:4] == b" " and line[:3].isdigit() and b"200" <= line[:3] < b"600":
        return Reply(int(line[:3]), line[4:].removesuffix(b"\r"))
    return None


class MalformedReply(ValueError):
    """The relay sent a line that is no reply, or too long for one. `line` is what it sent, as far as that tells."""

    def __init__(self, cause: str, line: bytes = b"") -> None:
        super().__init__(cause)
        self.line = line


class ReplyReader:
    """Reads replies from a stream of octets, in pieces of any size. It holds at most MAX_REPLY octets."""

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []  # the text of the lines so far of a reply of several lines
        self._code = b""
        self._size = 0
        self.is_partial = False
        """Whether a reply has begun that has not ended."""

    def may_be(self, code: int) -> bool:
        """Whether this is the code of the reply that has begun, by the octets that have arrived."""
        begun = self._code if self._lines else self._rest[:3]
        return str(code).encode().startswith(begun)

    def feed(self, data: bytes, replies: list[Reply]) -> None:
        """Add the replies that `data` completes to `replies`.

        Raises MalformedReply at the first line that is no reply; the replies before it have been added.
        """
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = b""
        if lines and not self._lines and max(map(len, lines)) < _USUAL_LINE and all(usual := [*map(_usual, lines)]):
            replies += cast("list[Reply]", usual)
        else:
            for line in lines:
                self._read(line, replies)
        if len(rest) + self._size > MAX_REPLY:
            raise MalformedReply(f"a reply is longer than {MAX_REPLY} octets")
        self._rest = rest
        self.is_partial = bool(rest or self._lines)

    def _read(self, line: bytes, replies: list[Reply]) -> None:
        match = _LINE.fullmatch(line)
        if match is None:
            raise MalformedReply("the relay sent a line that is no reply", line)
        code, mark, text = match.groups()
        if self._lines and code != self._code:
            raise MalformedReply(f"the lines of one reply have the codes {self._code.decode()} and {code.decode()}")
        self._code = code
        self._lines.append(text or b"")
        self._size += len(line) + 1
        if self._size > MAX_REPLY:
            raise MalformedReply(f"a reply is longer than {MAX_REPLY} octets")
        if mark != b"-":
            replies.append(Reply(int(code), b"\n".join(self._lines)))
            self._lines.clear()
            self._size = 0


def is_unknown_command(reply: Reply) -> bool:
    """Whether a refusal says that the relay does not know the command: by its second digit (RFC 5321, 4.2.1)."""
    return reply.code // 10 % 10 == 0 or _SYNTAX.match(reply.text) is not None


def result(address: str, reply: Reply, redactor: Redactor = NO_SECRETS, code: str = "") -> RecipientResult:
    """The reply as one recipient's result: enhanced code (RFC 2034) and text apart, the text short and redacted.

    `code` is the one that the mail holds, if it is the mail of a code.
    """
    octets = reply.text
    text = octets.decode("utf-8", "replace") if len(octets) <= MAX_TEXT else ""
    word, _, said = text.partition(" ")
    # fast path: nearly every reply is one such line, 1 us a mail; held to the full path by tests/smtp/test_replies.py
    # and tests/smtp/test_redaction.py
    if (
        _is_enhanced(word)
        and said.isprintable()
        and not ((code or redactor.recent) and _may_show(reply, code, redactor.recent))
    ):
        forms = redactor.forms
        if not (forms and (reply.code >= 300 or any(map(said.__contains__, forms)))):
            return RecipientResult(address, reply.code, word, said.strip())
    return RecipientResult(address, reply.code, *_split(reply, redactor, (code,) if code else ()))


def _may_show(reply: Reply, code: str, recent: Collection[str]) -> bool:
    """Whether a reply may show a code, in any form. Nearly every good reply does not, and needs no closer look."""
    if not f"{code}{''.join(recent)}".isdecimal():  # one of letters, of which the hints below say nothing
        return True
    if _HINT.search(reply.text) or (reply.code >= _REFUSES and _DEEP_HINT.search(reply.text)):
        return True
    digits = f"{reply.code}{reply.text.translate(None, _NO_DIGITS).decode()}"
    # Its first digits alone are masked at the end of a text, and they are three at least.
    if code and (code[:3] in digits or code.encode().hex() in digits):
        return True
    return bool(recent) and _may_show_recent(digits, reply.text, recent)


def _may_show_recent(digits: str, text: bytes, recent: Collection[str]) -> bool:
    """Whether one of the codes may stand among the digits: whole, in hexadecimal, or its beginning at the end."""
    if any(code in digits for code in recent):
        return True
    if digits.count("3") >= _FEWEST and any(code.encode().hex() in digits for code in recent):
        return True
    return text.rstrip(_NO_WORD)[-1:].isdigit() and any(digits.endswith((code[:-1], code[:-2])) for code in recent)


def describe(
    reply: Reply, redactor: Redactor = NO_SECRETS, codes: Sequence[str] = (), *, masks_numbers: bool = False
) -> str:
    """The reply in one line for people: its code, the enhanced code, and the text, short and redacted.

    See `Redactor.line` for `codes` and `masks_numbers`.
    """
    split = _split(reply, redactor, codes, masks_numbers=masks_numbers)
    return " ".join(filter(None, (str(reply.code), *split)))


def _split(reply: Reply, redactor: Redactor, codes: Sequence[str], *, masks_numbers: bool = False) -> tuple[str, str]:
    """A reply's enhanced code, empty if it has none, and the rest of its text on one line."""
    text = reply.text[: 4 * LONG].decode("utf-8", "replace")
    match = _ENHANCED.match(text)
    if "\n" in text:
        said = " ".join(filter(None, (_ENHANCED.sub("", line, count=1).strip() for line in text.split("\n"))))
    else:
        said = (text[match.end() :] if match else text).strip()
    said = redactor.line(said, codes, masks_numbers=masks_numbers)
    split = (match[1] if match else "", said)
    codes = (*codes, *redactor.recent)
    return _without_crossing(reply.code, *split, codes) if codes else split


def _without_crossing(reply_code: int, enhanced: str, said: str, codes: Sequence[str]) -> tuple[str, str]:
    """Leave out the details of an enhanced code (RFC 3463), or the text, where a code shows from one to the other."""
    general = f"{enhanced[0]}.0.0" if enhanced else ""
    for split in ((enhanced, said), (general, said)):
        if not shows(" ".join((str(reply_code), *split)), codes):
            return split
    return general, WITHHELD


@lru_cache(maxsize=256)
def _is_enhanced(word: str) -> bool:
    match = _ENHANCED.fullmatch(word)
    return match is not None and match[1] == word
