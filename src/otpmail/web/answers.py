"""The parts of answers over HTTP/1.1: lines of status, fields, and a status in words as the whole answer."""

from functools import lru_cache
from http import HTTPStatus

from otpmail.probes import PLAIN, status_text

Field = tuple[bytes, bytes]
Fields = tuple[Field, ...]

BODILESS = frozenset((204, 304))

PLAIN_FIELDS: Fields = ((b"content-type", PLAIN.encode()), (b"x-content-type-options", b"nosniff"))
"""The fields of an answer that is a status in words."""


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STATUS_LINES = {status: _status_line(status) for status in range(200, 600)}


@lru_cache(maxsize=64)
def lines_of(fields: Fields) -> bytes:
    """Return the fields of an answer as they are sent. Raises ValueError for one that would hold another one."""
    lines = b"".join([b"%b: %b\r\n" % field for field in fields])
    if not lines.count(b"\n") == lines.count(b"\r") == len(fields):
        raise ValueError("a field of an answer holds the end of a line")
    return lines


def closing_answer(status: HTTPStatus, date: bytes) -> bytes:
    """Return the whole answer to a request that can't be read. `date` is its field."""
    body = status_text(status)
    length = b"content-length: %d\r\n" % len(body)
    return b"".join((STATUS_LINES[status], date, length, lines_of(PLAIN_FIELDS), b"connection: close\r\n\r\n", body))
