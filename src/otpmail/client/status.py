"""Turns the status of a failed call into an error of the client, by its code and the details that the service adds."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from otpmail.client import errors

DETAILS_KEY = "grpc-status-details-bin"

_BUSY = frozenset({"QUEUE_FULL", "SHARE_SPENT", "MEMORY_FULL"})
_Code = grpc.StatusCode
_NUMBERS = {code.value[0]: code for code in _Code}

_CLOSED = "Channel closed!"
"""In gRPC's words where `close` has ended a call, which has one code or another."""

_LARGER = re.compile(r"larger than max \((?P<octets>\d+) vs\. (?P<most>\d+)\)")
"""In gRPC's words for a message that is too large, which has the code of a limit that ends."""

_IN_A_WRITE = "Internal error from Core"
"""In the words of grpc.aio where a write has failed, which then keeps no status that came just after."""

_PROBLEMS: Mapping[str, str] = MappingProxyType(
    {
        "http1.x server": "it speaks HTTP, and no gRPC; name the port of gRPC: PORT of the service, and not HTTP_PORT",
        "Hostname Verification": "its certificate is for another name; set OTPMAIL_TLS_NAME to one that is in it",
        "CERTIFICATE_VERIFY_FAILED": "its certificate is not of an authority in OTPMAIL_CA_FILE, or has expired",
        "WRONG_VERSION_NUMBER": "it does not speak TLS; do not set OTPMAIL_CA_FILE",
        "create security handshaker": (
            "OTPMAIL_CA_FILE holds no certificate, or OTPMAIL_CERT_FILE and OTPMAIL_KEY_FILE do not belong together"
        ),
        "handshake failed": "TLS fails; look at OTPMAIL_CA_FILE, and at OTPMAIL_CERT_FILE if it wants a certificate",
    }
)
"""The advice for a connection that fails, by gRPC's own words; the first that fits. It has no codes for these."""

_NOT_THERE = ("failed to connect", "errors resolving", "DNS resolution failed")
"""How gRPC's words begin where no connection could be made. Any others are of one that has ended during the call."""

_PLAIN = ("Connection refused", "No such file or directory")
"""In gRPC's words where nothing listens, which says no more than that no service answers."""

_ELSEWHERE = "start one (otpmail serve, otpmail dev), or name another by server= or OTPMAIL_SERVER"

_KINDS: Mapping[grpc.StatusCode, Callable[[str], errors.Error]] = MappingProxyType(
    {
        _Code.INVALID_ARGUMENT: errors.InvalidRequest,
        _Code.NOT_FOUND: errors.NotFound,
        _Code.UNAUTHENTICATED: errors.Unauthenticated,
        _Code.PERMISSION_DENIED: errors.NotAllowed,
        _Code.FAILED_PRECONDITION: errors.WrongState,
        _Code.RESOURCE_EXHAUSTED: errors.TooSoon,
        _Code.UNAVAILABLE: errors.Unavailable,
        _Code.DEADLINE_EXCEEDED: errors.TimedOut,
    }
)

Metadata = Iterable[Any]  # pairs, whose type each of gRPC's two kinds has its own name for
MessageT = TypeVar("MessageT", bound=Message)


def error_of_call(failure: grpc.RpcError, target: str) -> errors.Error:
    """Return the error for a failed call of either client, since gRPC's error for asyncio is an RpcError too."""
    return error_of(failure.code(), failure.details(), failure.trailing_metadata(), target)


def error_of(code: grpc.StatusCode, details: str | None, trailers: Metadata | None, target: str) -> errors.Error:
    """Return the error for a status. `target` is the service, for the words where none answered."""
    packed = next((value for key, value in trailers or () if key == DETAILS_KEY and isinstance(value, bytes)), b"")
    try:
        status = Status.FromString(packed)
    except DecodeError:  # of a server that is not ours
        status = Status()
    text = details or code.name
    info = _detail(status, ErrorInfo)
    retry = _detail(status, RetryInfo)
    retry_after = None if retry is None else retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    match code:
        case _Code.INVALID_ARGUMENT | _Code.OUT_OF_RANGE:
            return _invalid(text, _detail(status, BadRequest))
        case _Code.RESOURCE_EXHAUSTED:
            return _exhausted(text, info, _detail(status, QuotaFailure), retry_after)
        case _Code.UNAVAILABLE:
            return _unavailable(text, info, retry_after, target)
        case _Code.DEADLINE_EXCEEDED:
            if info is None:
                return errors.TimedOut(f"no answer from {target} in time")
            return errors.TimedOut(text, mail_id=info.metadata["mail_id"])
        case _Code.INTERNAL if is_of_a_write(code, text):
            code, text = _Code.UNAVAILABLE, f"the connection to {target} ended while a mail was written"
    return of_code(code, text, error_id=info.metadata["error_id"] if info is not None else "")


def most_octets(code: grpc.StatusCode, details: str | None) -> int | None:
    """Return how large a message may be, where the status of a call is that of a larger one, else None."""
    match = _LARGER.search(details or "") if code is _Code.RESOURCE_EXHAUSTED else None
    return None if match is None else int(match["most"])


def is_of_a_write(code: grpc.StatusCode, details: str | None) -> bool:
    """Whether a stream of grpc.aio has ended while a message was written: it then keeps no status of the service."""
    return code is _Code.INTERNAL and details == _IN_A_WRITE


def too_large(octets: int, most: int) -> str:
    """Return the words for a request that the service takes in no message."""
    return f"the request has {octets} octets, and the service takes {most} at most: send less, or raise MAIL_MAX_BYTES"


def closed() -> errors.Closed:
    """Return the error for a call of a client that was closed meanwhile."""
    return errors.Closed("the client was closed during the call")


def of_code(code: grpc.StatusCode | int, text: str, *, error_id: str = "") -> errors.Error:
    """Return the error for a code without details, such as that of one mail of a stream."""
    found = _NUMBERS.get(code) if isinstance(code, int) else code
    if _CLOSED in text and not error_id:
        return closed()
    if found is _Code.UNAUTHENTICATED:
        text += "; the client reads the token from OTPMAIL_TOKEN"
    kind = _KINDS.get(found) if found is not None else None
    return errors.ServiceError(text, error_id=error_id) if kind is None else kind(text)


def _invalid(text: str, request: BadRequest | None) -> errors.InvalidRequest:
    violations: Sequence[BadRequest.FieldViolation] = () if request is None else request.field_violations
    for violation in violations:
        return errors.InvalidRequest(text, field=violation.field, description=violation.description)
    return errors.InvalidRequest(text)


def _exhausted(
    text: str, info: ErrorInfo | None, quota: QuotaFailure | None, retry_after: float | None
) -> errors.Error:
    if info is not None and info.reason in _BUSY:
        return errors.Busy(text, retry_after=retry_after)
    if match := _LARGER.search(text):
        return errors.InvalidRequest(too_large(int(match["octets"]), int(match["most"])))
    for violation in () if quota is None else quota.violations:
        return errors.TooSoon(text, retry_after=retry_after, limit=violation.quota_id, subject=violation.subject)
    return errors.TooSoon(text, retry_after=retry_after)


def _unavailable(text: str, info: ErrorInfo | None, retry_after: float | None, target: str) -> errors.Unavailable:
    if info is None:
        if problem := connection_problem(text):
            return errors.Unreachable(f"no call reaches the service on {target}: {problem}")
        return errors.Unreachable(f"no service answers on {target}{_cause(text)}")
    kind = errors.RelayDown if info.reason == "RELAY_DOWN" else errors.Unavailable
    return kind(text, retry_after=retry_after)


def _cause(details: str) -> str:
    """Return the rest of the words for a service that does not answer: the cause if it is known, and what to change."""
    if not details.startswith(_NOT_THERE):
        return f": {details}"
    said = "" if any(plain in details for plain in _PLAIN) else f": {details.rpartition('last error: ')[2]}"
    return f"{said}; {_ELSEWHERE}"


def connection_problem(details: str) -> str:
    """Return what to change where a service does not answer, empty where gRPC's words for it name nothing known."""
    if details.startswith("failed to connect") and "Socket closed" in details:  # else it has ended during the call
        return "it closes the connection; if it speaks TLS, set OTPMAIL_CA_FILE, and OTPMAIL_CERT_FILE if it wants one"
    return next((words for mark, words in _PROBLEMS.items() if mark in details), "")


def _detail(status: Status, kind: type[MessageT]) -> MessageT | None:
    found = kind()
    return next((found for packed in status.details if packed.Unpack(found)), None)
