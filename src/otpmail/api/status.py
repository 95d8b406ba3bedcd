"""Maps the errors of `otpmail.errors` to statuses (AIP-193, google/rpc/error_details.proto) that every door sends."""

import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from math import ceil
from typing import Never

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from otpmail.api.calls import Context
from otpmail.errors import (
    CallerError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    RequestTooLong,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

_log = logging.getLogger("otpmail")

DOMAIN = "otpmail"
_DETAILS_KEY = "grpc-status-details-bin"

Trailers = tuple[tuple[str, bytes], ...]


class Code(Enum):
    """The codes of google.rpc.Code. A value is a tuple with the number first, as gRPC's own codes have it."""

    OK = (0,)
    CANCELLED = (1,)
    UNKNOWN = (2,)
    INVALID_ARGUMENT = (3,)
    DEADLINE_EXCEEDED = (4,)
    NOT_FOUND = (5,)
    ALREADY_EXISTS = (6,)
    PERMISSION_DENIED = (7,)
    RESOURCE_EXHAUSTED = (8,)
    FAILED_PRECONDITION = (9,)
    ABORTED = (10,)
    OUT_OF_RANGE = (11,)
    UNIMPLEMENTED = (12,)
    INTERNAL = (13,)
    UNAVAILABLE = (14,)
    DATA_LOSS = (15,)
    UNAUTHENTICATED = (16,)

    @property
    def number(self) -> int:
        """The number on the wire."""
        return self.value[0]


_CODES: tuple[tuple[type[CallerError], Code], ...] = (
    (InvalidArgument, Code.INVALID_ARGUMENT),
    (NotFound, Code.NOT_FOUND),
    (Unauthenticated, Code.UNAUTHENTICATED),
    (PermissionDenied, Code.PERMISSION_DENIED),
    (FailedPrecondition, Code.FAILED_PRECONDITION),
    (LimitExceeded, Code.RESOURCE_EXHAUSTED),
    (RequestTooLong, Code.RESOURCE_EXHAUSTED),
    (Unimplemented, Code.UNIMPLEMENTED),
    (DeadlineExceeded, Code.DEADLINE_EXCEEDED),
    (Unavailable, Code.UNAVAILABLE),
)


@dataclass(frozen=True, slots=True)
class RpcStatus:
    """A gRPC status: code, message, and the details that a program can read."""

    code: Code
    message: str
    details: tuple[Message, ...]

    async def abort(self, context: Context) -> Never:
        """End the call with this status. Raises the error of its door (`api.calls`), which nothing may catch."""
        await context.abort(self.code, self.message, self.trailers)
        raise AssertionError  # that raises in any case

    @property
    def trailers(self) -> Trailers:
        """The details as gRPC sends them, with the octets of google.rpc.Status."""
        return _trailers(Status(code=self.code.number, message=self.message), self.details)


def status_for(method: str, error: Exception) -> RpcStatus:
    """The status of an error that `method` raised. An unexpected one is logged here, under the id in its status."""
    if isinstance(error, CallerError):
        return status_of(error)
    error_id = secrets.token_hex(8)
    _log.error(
        "%s failed with an unexpected error, id %s",
        method,
        error_id,
        exc_info=error,
        extra={"event": "unforeseen", "fields": {"method": method, "error_id": error_id}},
    )
    return internal_error(error_id)


def status_of(error: CallerError) -> RpcStatus:
    """The status of an error that is meant for callers, with its details."""
    code = next(code for kind, code in _CODES if isinstance(error, kind))
    info = ErrorInfo(reason=error.reason, domain=DOMAIN)
    details: list[Message] = [info]
    match error:
        case DeadlineExceeded(mail_id=mail_id) if mail_id:
            info.metadata["mail_id"] = mail_id
        case InvalidArgument(field=field, description=description):
            details.append(
                BadRequest(field_violations=[BadRequest.FieldViolation(field=field, description=description)])
            )
        case LimitExceeded():
            details += _of_limit(error)
        case Unavailable(retry_after=retry_after):
            details.append(_retry(retry_after))
    return RpcStatus(code, str(error), tuple(details))


def trailers_of(error: LimitExceeded) -> Trailers:
    """Return what a limit says as the trailers of a call that ends with OK: the original's contract has no error."""
    return _trailers(Status(code=Code.OK.number, message=str(error)), _of_limit(error))


def internal_error(error_id: str) -> RpcStatus:
    """The status of an unexpected error: a fixed message, and the id under which the log has the traceback."""
    info = ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"error_id": error_id})
    return RpcStatus(Code.INTERNAL, f"internal error {error_id}; the service's log has the details", (info,))


def _of_limit(error: LimitExceeded) -> Iterable[Message]:
    """Return when to try again, which limit was reached, and whose."""
    violation = QuotaFailure.Violation(subject=error.subject, description=str(error), quota_id=error.setting)
    return _retry(error.retry_after), QuotaFailure(violations=[violation])


def _trailers(status: Status, details: Iterable[Message]) -> Trailers:
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return ((_DETAILS_KEY, status.SerializeToString()),)


def _retry(seconds: float) -> RetryInfo:
    delay = Duration()
    delay.FromMilliseconds(max(1, ceil(seconds * 1000)))  # never too soon
    return RetryInfo(retry_delay=delay)
