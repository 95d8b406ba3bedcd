"""The Connect protocol over HTTP/1.1: bodies in JSON or protobuf, timeouts (https://connectrpc.com/docs/protocol).

Bodies are read as the octets of protobuf, whatever the caller sends, so that the guard weighs and parses them as any.
"""

import json
import re
from collections.abc import Awaitable, Callable
from operator import methodcaller
from typing import Any, Final, NamedTuple

from google.protobuf import json_format
from google.protobuf.message import Message

from otpmail.errors import InvalidArgument
from otpmail.limits.memory import LARGE, READ_FACTOR, Memory

VERSION = b"1"

Turn = Callable[[], Awaitable[None]]

_SIGNS = (b",", b"[", b"{")  # one of them is before each value, and others may be in texts
_MOST_VALUES = 100_000  # that are read in 20 ms, since nothing else runs meanwhile
_TIMEOUT = re.compile(rb"[0-9]{1,10}")
_UNKNOWN_FIELD = re.compile(r'has no field named "(\w{1,64})"')
_BAD_FIELD = re.compile(r"Failed to parse (\w{1,64}) field")


class Codec(NamedTuple):
    """How a body is written: its content type, and the functions between it and messages."""

    content_type: bytes
    decode: Callable[[bytes, type[Message]], bytes]
    encode: Callable[[Message], bytes]

    def __repr__(self) -> str:
        return "<Codec>"


def _from_json(body: bytes, kind: type[Message]) -> bytes:
    """Return the octets of a message in JSON. Raises InvalidArgument, with no value of the body in its words."""
    name = kind.DESCRIPTOR.full_name
    if sum(map(body.count, _SIGNS)) > _MOST_VALUES:
        raise InvalidArgument("request", f"has more than {_MOST_VALUES} values; send it as protobuf")
    try:
        value = json.loads(body, object_pairs_hook=_once_each)
        if isinstance(value, dict):
            return json_format.ParseDict(value, kind()).SerializeToString()
    except json_format.ParseError as error:
        text = str(error)
        if (found := _UNKNOWN_FIELD.search(text)) is not None:
            raise InvalidArgument(found[1], f"is no field of {name}") from None
        if (found := _BAD_FIELD.search(text)) is not None:
            raise InvalidArgument(found[1], "has a value of another type in JSON") from None
    except (ValueError, RecursionError, TypeError, AttributeError):
        pass
    raise InvalidArgument("request", f"is no {name} in JSON") from None


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON. Raises ValueError where a name comes twice: readers differ in which one counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _to_json(message: Message) -> bytes:
    return json_format.MessageToJson(message, indent=None, ensure_ascii=False).encode()


JSON = Codec(b"application/json", _from_json, _to_json)
PROTO = Codec(b"application/proto", lambda body, _: body, methodcaller("SerializeToString"))

CODECS: Final = {codec.content_type: codec for codec in (JSON, PROTO)}


async def decode(codec: Codec, body: bytes, kind: type[Message], memory: Memory, turn: Turn) -> bytes:
    """Return the octets of a message, of a large one in JSON in a turn of its own. Raises InvalidArgument."""
    if codec is JSON and len(body) >= LARGE:
        return await decode_large(body, kind, memory, turn)
    return codec.decode(body, kind)


async def decode_large(body: bytes, kind: type[Message], memory: Memory, turn: Turn) -> bytes:
    """Decode a large body of JSON in a turn of its own. Raises InvalidArgument, and MemoryFull where it does not fit.

    They count here, since the guard weighs those of protobuf, which may be a sixth of them.
    """
    octets = READ_FACTOR * len(body)
    memory.make_room(octets)
    memory.reading += octets
    try:
        await turn()
        return JSON.decode(body, kind)
    finally:
        memory.reading -= octets


def seconds_of(timeout: bytes) -> float:
    """Return the seconds of Connect-Timeout-Ms. Raises InvalidArgument."""
    if not _TIMEOUT.fullmatch(timeout):
        raise InvalidArgument("Connect-Timeout-Ms", "must be milliseconds, of at most ten digits")
    return int(timeout) / 1000
