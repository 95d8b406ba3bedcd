"""Reads the body of a request, no further than it may be long, and unpacks it."""

import re
import zlib

from otpmail.errors import InvalidArgument, MemoryFull, RequestTooLong
from otpmail.limits.memory import LARGE
from otpmail.mail.turns import Turn
from otpmail.web.context import CallContext
from otpmail.web.incoming import FULL, Incoming

GZIP = b"gzip"
IDENTITY = b"identity"
_CODINGS = {b"": IDENTITY, b"x-gzip": GZIP}
_STEP = 64 << 10  # octets that are unpacked at once, in less than a millisecond
_GZIP_WBITS = 31  # zlib's sign for the header of gzip
_NO_WEIGHT = re.compile(rb"q=0(\.0*)?")


async def read_body(context: CallContext, *, most: int, encoding: bytes, turn: Turn) -> bytes:
    """Return the whole body. Raises RequestTooLong where it is longer than `most`, and MemoryFull."""
    body = await context.exchange.read_all(most)
    if len(body) > most:
        raise _too_long(most)
    # An empty body is not unpacked, by the protocol: a client has nothing to pack there.
    return await unpack(context, body, most=most, turn=turn) if encoding == GZIP and body else body


async def unpack(context: CallContext, body: bytes, *, most: int, turn: Turn) -> bytes:
    """Unpack gzip in steps, which count in the memory.

    Raises InvalidArgument for other octets, MemoryFull, and RequestTooLong where they hold more than `most`.
    """
    unpacker, parts, octets = zlib.decompressobj(_GZIP_WBITS), list[bytes](), 0
    incoming = Incoming(context.exchange.connection.memory, len(body))
    try:
        while body and not unpacker.eof:
            parts.append(unpacker.decompress(body, _STEP))
            body = unpacker.unconsumed_tail
            octets += len(parts[-1])
            if octets > most:
                raise _too_long(most)
            if not incoming.fits(octets):
                raise MemoryFull(FULL)
            if octets > LARGE:
                await turn()
    except zlib.error:
        raise InvalidArgument("request", "is not gzip, as its content-encoding says") from None
    finally:
        incoming.release()
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidArgument("request", "is not one whole stream of gzip")
    return b"".join(parts)


def coding_of(text: bytes) -> bytes:
    """Return the coding that a Content-Encoding names, in lower case and by its usual name (RFC 9110, 8.4.1)."""
    name = text.lower()
    return _CODINGS.get(name, name)


def pack(body: bytes) -> bytes:
    """Pack octets by gzip."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WBITS)
    return packer.compress(body) + packer.flush()


def takes_gzip(accepted: bytes) -> bool:
    """Whether an Accept-Encoding names gzip with a weight above 0 (RFC 9110, 12.5.3)."""
    for coding in accepted.lower().split(b","):
        name, _, weight = coding.replace(b" ", b"").replace(b"\t", b"").partition(b";")
        if name == GZIP:
            return not _NO_WEIGHT.fullmatch(weight)
    return False


def _too_long(most: int) -> RequestTooLong:
    return RequestTooLong(f"the request is longer than {most} octets")
