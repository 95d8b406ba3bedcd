"""Mails as files of a mail, of type message/rfc822: checked, and written unchanged except for line ends.

RFC 2046, 5.2.1 forbids base64 and quoted-printable here. So a mail with a NUL or with a line over 998 octets can't be
sent in this way. One that is not ASCII needs a relay that announces 8BITMIME.
"""

from collections.abc import Iterator
from hashlib import blake2b

from otpmail.compose.transfer import canonical, crlf, lines_fit
from otpmail.cooperate import Steps
from otpmail.errors import InvalidArgument
from otpmail.values import frozen

_AT_ONCE = 32 << 10
_CURE = "message/rfc822 can't hold (RFC 2046, 5.2.1); application/octet-stream can"


@frozen()
class Survey:
    """The facts about a mail that come before its first octet: whether it is 8bit, and a digest of it."""

    is_8bit: bool
    digest: str


def survey(content: bytes, field: str) -> Steps[Survey]:
    """Read a mail once. Raises InvalidArgument, naming `field`, for one that can't be sent unencoded."""
    is_8bit = False
    digest = blake2b(digest_size=12)
    for octets in embedded_slices(content):
        if b"\0" in octets:
            raise InvalidArgument(field, f"holds a NUL, which {_CURE}")
        if not lines_fit(octets):
            raise InvalidArgument(field, f"has a line of more than 998 octets, which {_CURE}")
        is_8bit = is_8bit or not octets.isascii()
        digest.update(octets)
        yield
    return Survey(is_8bit, digest.hexdigest())


def embedded_slices(content: bytes) -> Iterator[bytes]:
    """Yield whole lines of a mail, each with CRLF at its end; a line longer than a slice is cut."""
    start = 0
    while len(content) - start > _AT_ONCE:
        end = _cut(content, start, start + _AT_ONCE)
        yield crlf(content[start:end])
        start = end
    yield canonical(content[start:])


def _cut(content: bytes, start: int, end: int) -> int:
    """Where a slice ends that may go to `end`: behind its last line end, or there if it has none."""
    line_end = max(content.rfind(b"\n", start, end), content.rfind(b"\r", start, end)) + 1
    if not line_end:
        return end
    return line_end + (content[line_end - 1 : line_end + 1] == b"\r\n")
