"""The charset of a file of text, as its octets tell it (RFC 2046, 4.1.2)."""

from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE, getincrementaldecoder

from otpmail.cooperate import Steps

_AT_ONCE = 64 << 10
_MARKS = (  # the longer ones first, since one begins with another
    (BOM_UTF32_LE, "utf-32"),
    (BOM_UTF32_BE, "utf-32"),
    (BOM_UTF16_LE, "utf-16"),
    (BOM_UTF16_BE, "utf-16"),
)
UNKNOWN = "unknown-8bit"
"""The charset of a text in none that is known (RFC 1428, 3)."""


def charset_of(content: bytes) -> Steps[str]:
    """Return "us-ascii" or "utf-8" for what is either, and else what its byte order mark says, or "unknown-8bit"."""
    decoder = getincrementaldecoder("utf-8")()
    is_ascii = True
    try:
        for start in range(0, len(content), _AT_ONCE):
            piece = content[start : start + _AT_ONCE]
            is_ascii = is_ascii and piece.isascii()
            if not is_ascii:
                decoder.decode(piece)
            yield
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return next((name for mark, name in _MARKS if content.startswith(mark)), UNKNOWN)
    return "us-ascii" if is_ascii else "utf-8"
