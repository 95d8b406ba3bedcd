"""The Connect protocol over HTTP/1.1: bodies in JSON or protobuf, errors, timeouts (https://connectrpc.com/docs/protocol).

Bodies are read as the octets of protobuf, whatever the caller sends, so that the guard weighs and parses them as any.
"""

import base64
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from otpmail.api.status import Code
from otpmail.errors import InvalidArgument
from otpmail.limits.memory import READ_FACTOR, Memory

HTTP_STATUS: Final = {
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
"""The HTTP status of each code, by the protocol."""

VERSION = b"1"

_SIGNS = (b",", b"[", b"{")  # one of them is before each value, and others may be in texts
_MOST_VALUES = 100_000  # that are read in 20 ms, since nothing else runs meanwhile
_NAMES = {Code.CANCELLED: "canceled"}
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
PROTO = Codec(b"application/proto", lambda body, _: body, lambda message: message.SerializeToString())

CODECS: Final = {codec.content_type: codec for codec in (JSON, PROTO)}


async def decode_large(body: bytes, kind: type[Message], memory: Memory, turn: Callable[[], Awaitable[None]]) -> bytes:
    """Decode a large body of JSON in a turn of its own. Raises MemoryFull where its octets do not fit.

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


def codec_of(content_type: bytes) -> Codec | None:
    """Return the codec of a unary call by its Content-Type, None for another type."""
    found = CODECS.get(content_type)
    if found is not None:
        return found
    media, _, parameters = content_type.partition(b";")
    charset = parameters.strip().lower().replace(b'"', b"")
    return CODECS.get(media.strip().lower()) if charset in {b"", b"charset=utf-8"} else None


def seconds_of(timeout: bytes | None) -> float | None:
    """Return the seconds of Connect-Timeout-Ms, None without one. Raises InvalidArgument."""
    if timeout is None:
        return None
    if not _TIMEOUT.fullmatch(timeout):
        raise InvalidArgument("Connect-Timeout-Ms", "must be milliseconds, of at most ten digits")
    return int(timeout) / 1000


def error_body(code: Code, message: str, details: bytes) -> bytes:
    """Return an error in JSON. `details` are the octets of google.rpc.Status, as gRPC's trailer has them."""
    return json.dumps(error_of(code, message, details), ensure_ascii=False).encode()


def error_of(code: Code, message: str, details: bytes) -> dict[str, Any]:
    """Return an error as an object of JSON. Each detail is there twice: for programs, and in JSON for people."""
    error: dict[str, Any] = {"code": _NAMES.get(code) or code.name.lower(), "message": message}
    if details:
        error["details"] = [
            {
                "type": detail.type_url.rpartition("/")[2],
                "value": base64.b64encode(detail.value).decode().rstrip("="),
                "debug": {key: value for key, value in json_format.MessageToDict(detail).items() if key != "@type"},
            }
            for detail in Status.FromString(details).details
        ]
    return error
