"""The Connect protocol over HTTP/1.1: bodies in JSON or protobuf, timeouts (https://connectrpc.com/docs/protocol).

Bodies are read as the octets of protobuf, whatever the caller sends, so that the guard weighs and parses them as any.
"""

import re
from collections.abc import Callable
from operator import methodcaller
from typing import Final, NamedTuple

from google.protobuf import json_format
from google.protobuf.message import Message

from otpmail.errors import InvalidArgument
from otpmail.limits.memory import LARGE, Memory
from otpmail.mail.turns import Turn
from otpmail.web.json_body import from_json, from_large_json

VERSION = b"1"

_TIMEOUT = re.compile(rb"[0-9]{1,10}")


class Codec(NamedTuple):
    """How a body is written: its content type, and the functions between it and messages."""

    content_type: bytes
    decode: Callable[[bytes, type[Message]], bytes]
    encode: Callable[[Message], bytes]

    def __repr__(self) -> str:
        return "<Codec>"


def _to_json(message: Message) -> bytes:
    return json_format.MessageToJson(message, indent=None, ensure_ascii=False).encode()


JSON = Codec(b"application/json", from_json, _to_json)
PROTO = Codec(b"application/proto", lambda body, _: body, methodcaller("SerializeToString"))

CODECS: Final = {codec.content_type: codec for codec in (JSON, PROTO)}


async def decode(codec: Codec, body: bytes, kind: type[Message], memory: Memory, turn: Turn) -> bytes:
    """Return the octets of a message. Raises InvalidArgument, and MemoryFull for a large one in JSON."""
    if codec is JSON and len(body) >= LARGE:
        return await from_large_json(body, kind, memory, turn)
    return codec.decode(body, kind)


def seconds_of(timeout: bytes) -> float:
    """Return the seconds of Connect-Timeout-Ms. Raises InvalidArgument."""
    if not _TIMEOUT.fullmatch(timeout):
        raise InvalidArgument("Connect-Timeout-Ms", "must be milliseconds, of at most ten digits")
    return int(timeout) / 1000
