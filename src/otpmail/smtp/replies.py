"""A relay's replies: cut out of the bytes that arrive, and what they mean for a recipient. No I/O."""

import re
from functools import lru_cache
from typing import NamedTuple

from otpmail.model import RecipientResult

CLOSING = 421  # "service not available, closing transmission channel" (RFC 5321, 4.2.3): the mail was not taken
MAX_REPLY = 64 << 10  # octets of one reply with all its lines; RFC 5321, 4.5.3.1.5 has 512 a line
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*?))?\r?", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")
_MAX_TEXT = 500
_USUAL_LINE = 128  # octets


class Reply(NamedTuple):
    """One reply (RFC 5321, 4.2): its code, and the text of its lines as it came."""

    code: int
    text: bytes

    def __str__(self) -> str:
        said = self.text[:_MAX_TEXT].decode("utf-8", "replace")
        return f"{self.code} {_printable(said)}".rstrip()


@lru_cache(maxsize=256)  # to MAIL, RCPT and RSET a relay says the same each time
def _usual(line: bytes) -> Reply | None:
    """The reply on a line that is one by itself, if it is: three digits, a space, text."""
    if line[3:4] == b" " and line[:3].isdigit() and b"200" <= line[:3] < b"600":
        return Reply(int(line[:3]), line[4:].removesuffix(b"\r"))
    return None


class MalformedReply(ValueError):
    """What the relay sent is no reply, or too long for one."""


class ReplyReader:
    """Cuts a stream of bytes, in pieces of any size, into replies. What it holds is at most MAX_REPLY octets."""

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []  # the text of the lines so far of a reply of several
        self._code = b""
        self._size = 0

    @property
    def halfway(self) -> bool:
        """Whether a reply has begun that has not ended."""
        return bool(self._rest or self._lines)

    def may_be(self, code: int) -> bool:
        """Whether the reply that has begun has, or may yet turn out to have, this code."""
        begun = self._code if self._lines else self._rest[:3]
        return str(code).encode().startswith(begun)

    def feed(self, data: bytes, replies: list[Reply]) -> None:
        """Add the replies that `data` completes to `replies`.

        Raises MalformedReply at the first line that is none; the replies before it have been added.
        """
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = b""
        for line in lines:
            usual = _usual(line) if len(line) < _USUAL_LINE and not self._lines else None
            if usual is None:
                self._read(line, replies)
            else:
                replies.append(usual)
        if len(rest) + self._size > MAX_REPLY:
            raise MalformedReply(f"a reply is longer than {MAX_REPLY} octets")
        self._rest = rest

    def _read(self, line: bytes, replies: list[Reply]) -> None:
        match = _LINE.fullmatch(line)
        if match is None:
            shown = _printable(line[:80].decode("utf-8", "replace"))
            raise MalformedReply(f"what it said is no reply: {shown}")
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


def result(address: str, reply: Reply) -> RecipientResult:
    """The reply as one recipient's result: enhanced code (RFC 2034) and text apart, the text kept short."""
    text = reply.text[: 4 * _MAX_TEXT].decode("utf-8", "replace")
    word, _, said = text.partition(" ")
    if _is_enhanced(word) and len(said) <= _MAX_TEXT and said.isprintable():  # nearly every reply is so
        return RecipientResult(address, reply.code, word, said.strip())
    return RecipientResult(address, reply.code, *_split(text))


def _split(text: str) -> tuple[str, str]:
    """Any reply's enhanced code, empty where it has none, and what it says besides, on one line."""
    match = _ENHANCED.match(text)
    enhanced = match[1] if match else ""
    if "\n" in text:
        said = " ".join(filter(None, (_ENHANCED.sub("", line, count=1).strip() for line in text.split("\n"))))
    else:
        said = (text[match.end() :] if match else text).strip()
    return enhanced, _printable(said)[:_MAX_TEXT]


@lru_cache(maxsize=256)
def _is_enhanced(word: str) -> bool:
    match = _ENHANCED.fullmatch(word)
    return match is not None and match[1] == word


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
