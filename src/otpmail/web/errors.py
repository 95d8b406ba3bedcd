"""Errors as the Connect protocol writes them: an HTTP status, and JSON with gRPC's details."""

import base64
import json
from collections.abc import Iterable
from math import ceil
from typing import Any, Final

from google.protobuf import json_format
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from otpmail.api.status import Code
from otpmail.web.answers import Fields
from otpmail.web.context import Ended, Trailers
from otpmail.web.exchange import Exchange

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

_NAMES = {Code.CANCELLED: "canceled"}


async def answer_error(exchange: Exchange, ended: Ended, fields: Fields, *, takes_tokens: bool) -> None:
    """Answer a call that has ended with an error. Where its body has not come whole, it may never: then close.

    `takes_tokens` is whether a caller is known by a token.
    """
    if not exchange.is_whole:
        exchange.keep_alive = False
    body = json.dumps(error_of(ended), ensure_ascii=False).encode()
    kind = b"content-type", b"application/json"
    await exchange.answer(HTTP_STATUS[ended[0]], body, kind, *_advice(ended, takes_tokens=takes_tokens), *fields)


def _advice(ended: Ended, *, takes_tokens: bool) -> Fields:
    """Return what any client of HTTP understands: how to say who calls, and in how many seconds to try again."""
    code, _, trailers = ended
    if code is Code.UNAUTHENTICATED:
        return ((b"www-authenticate", b"Bearer"),) if takes_tokens else ()
    retry = RetryInfo()
    if any(detail.Unpack(retry) for detail in _details(trailers)):
        return ((b"retry-after", b"%d" % ceil(retry.retry_delay.ToTimedelta().total_seconds())),)
    return ()


def _details(trailers: Trailers) -> Iterable[Any]:
    return Status.FromString(trailers[0][1]).details if trailers else ()


def error_of(ended: Ended) -> dict[str, Any]:
    """Return an error as an object of JSON. Each detail is there twice: for programs, and in JSON for people."""
    code, message, trailers = ended
    error: dict[str, Any] = {"code": _NAMES.get(code) or code.name.lower(), "message": message}
    if trailers:
        error["details"] = [
            {
                "type": detail.type_url.rpartition("/")[2],
                "value": base64.b64encode(detail.value).decode().rstrip("="),
                "debug": {key: value for key, value in json_format.MessageToDict(detail).items() if key != "@type"},
            }
            for detail in _details(trailers)
        ]
    return error
