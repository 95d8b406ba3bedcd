"""Methods that answer with a stream, by Connect's envelopes: WatchMail.

An envelope has a byte of flags, the length of its message in four octets, and the message. The last one has the end of
the call in JSON, with the error if there is one; the HTTP status is 200 in any case.
"""

import json
from contextlib import aclosing
from typing import Any

from otpmail.errors import InvalidArgument
from otpmail.mail.turns import Turn
from otpmail.web.answers import Fields
from otpmail.web.body import GZIP, IDENTITY, coding_of, read_body, unpack
from otpmail.web.connect import JSON, PROTO, Codec
from otpmail.web.context import CallContext
from otpmail.web.errors import error_of
from otpmail.web.exchange import Exchange

STREAM_CODECS = {b"application/connect+json": JSON, b"application/connect+proto": PROTO}

_COMPRESSED, _LAST = 1, 2
_PREFIX = 5


async def read_one(context: CallContext, headers: Any, *, most: int, turn: Turn) -> bytes:
    """Return the one message of the request, of at most `most` octets. Raises InvalidArgument and RequestTooLong."""
    body = await read_body(context, most=most, encoding=IDENTITY, turn=turn)
    flags, length = body[:1], int.from_bytes(body[1:_PREFIX], "big")
    if len(body) < _PREFIX or len(body) != _PREFIX + length or flags not in {b"\0", b"\1"}:
        raise InvalidArgument("request", "is not one message in an envelope of Connect")
    if flags == b"\1":
        if coding_of(headers.get(b"connect-content-encoding", b"")) != GZIP:
            raise InvalidArgument("request", "is packed, and Connect-Content-Encoding is not gzip")
        return await unpack(context, body[_PREFIX:], most=most, turn=turn)
    return body[_PREFIX:]


async def run_stream(guarded: Any, exchange: Exchange, context: CallContext, codec: Codec, fields: Fields) -> None:
    """Run a call, and send its messages as they come."""
    content_type = next(name for name, known in STREAM_CODECS.items() if known is codec)
    await exchange.begin(200, (b"content-type", content_type), *fields)

    async def send_all() -> None:
        """Send the messages."""
        async with aclosing(guarded(None, context)) as messages:
            async for message in messages:
                await exchange.write(_envelope(0, codec.encode(message)))

    await context.run(send_all())
    end: dict[str, Any] = {}
    if context.ended is not None:
        end["error"] = error_of(context.ended)
    last = json.dumps(end, ensure_ascii=False).encode()
    await exchange.end(_envelope(_LAST, last))


def _envelope(flags: int, octets: bytes) -> bytes:
    return bytes((flags,)) + len(octets).to_bytes(4, "big") + octets
