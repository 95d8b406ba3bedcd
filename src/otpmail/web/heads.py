"""Knows the head of a request again: a client on a connection writes nearly the same one each time."""

import re
from typing import NamedTuple

from otpmail.web.exchange import Headers

_LONGEST = 1024  # octets, which each connection may keep of a head
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([1-9][0-9]{0,3})\r\n", re.IGNORECASE)
_MOST_DIGITS = 4
_END = b"\r\n\r\n"
# Their bodies do not end by their length, or not at once.
_RARE = frozenset((b"transfer-encoding", b"expect", b"upgrade"))


class Head(NamedTuple):
    """The parts of the head of a request. With `goes_on` another one may follow it."""

    method: str
    path: str
    query: bytes
    headers: Headers
    version: str
    goes_on: bool

    def __repr__(self) -> str:
        return f"<Head {self.method} {self.path}>"  # its fields hold a token


class KnownHead:
    """The octets of a head that was parsed, with its parts.

    A later head on its connection with the same octets, but for the number of Content-Length, has the same parts.
    """

    __slots__ = ("_after", "_before", "_head", "_octets", "_size")

    def __init__(self, octets: bytes, head: Head, length: re.Match[bytes]) -> None:
        self._head = head
        self._octets = octets
        self._size = len(octets) + int(length[1])
        self._before, self._after = octets[: length.start(1)], octets[length.end(1) :]

    def __repr__(self) -> str:
        return f"<KnownHead of {self._head!r}>"

    @classmethod
    def of(cls, data: bytes, head: Head, url: bytes) -> "KnownHead | None":
        """Return the head of a request that is the whole of `data`; None for one that is rare in any way."""
        end = data.find(_END, 0, _LONGEST) + len(_END)
        octets = data[:end]
        lengths = list(_LENGTH.finditer(octets))
        is_usual = (
            octets.startswith(b"%s %s HTTP/1.1\r\n" % (head.method.encode(), url))
            and _RARE.isdisjoint(head.headers)
            and len(lengths) == 1
            and head.headers.get(b"content-length") == lengths[0][1]
        )
        if not is_usual or len(data) != end + int(lengths[0][1]):
            return None
        return cls(octets, head, lengths[0])

    def read(self, data: bytes) -> tuple[Head, bytes] | None:
        """Return head and body of a request like this one that is the whole of `data`, None for anything else."""
        if len(data) == self._size and data.startswith(self._octets):
            return self._head, data[len(self._octets) :]
        start = len(self._before)
        if not data.startswith(self._before):
            return None
        end = data.find(b"\r", start, start + _MOST_DIGITS + 1)
        digits = data[start:end]
        if end < 0 or not digits.isdigit() or not data.startswith(self._after, end):
            return None
        body = data[end + len(self._after) :]
        if len(body) != int(digits):
            return None
        method, path, query, headers, version, goes_on = self._head
        return Head(method, path, query, {**headers, b"content-length": digits}, version, goes_on), body
