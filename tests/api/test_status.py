"""Errors as gRPC statuses."""

from typing import Any

import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from otpmail.api.calls import CallEnded
from otpmail.api.status import DOMAIN, Code, internal_error, status_of
from otpmail.errors import (
    CallerError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    LimitExceeded,
    MemoryFull,
    NotFound,
    PermissionDenied,
    QueueFull,
    ShareSpent,
    Unauthenticated,
    Unavailable,
)

_ERRORS: list[tuple[CallerError, Code, str]] = [
    (InvalidArgument("to[0]", "is empty"), Code.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
    (NotFound("no such mail"), Code.NOT_FOUND, "NOT_FOUND"),
    (PermissionDenied("not from there"), Code.PERMISSION_DENIED, "PERMISSION_DENIED"),
    (FailedPrecondition("too late"), Code.FAILED_PRECONDITION, "FAILED_PRECONDITION"),
    (LimitExceeded("address", "too soon", retry_after=1.5), Code.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED"),
    (QueueFull(3), Code.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
    (ShareSpent("it has 3", "queue_share"), Code.RESOURCE_EXHAUSTED, "SHARE_SPENT"),
    (Unauthenticated("no token"), Code.UNAUTHENTICATED, "UNAUTHENTICATED"),
    (Unavailable("no relay", retry_after=1.5), Code.UNAVAILABLE, "UNAVAILABLE"),
]


@pytest.mark.parametrize(("error", "code", "reason"), _ERRORS)
def test_each_error_has_its_status(error: CallerError, code: Code, reason: str) -> None:
    """A status has the code, the error's message, and an ErrorInfo with a reason that programs can rely on."""
    status = status_of(error)
    assert status.code is code
    assert status.message == str(error)
    assert status.details[0] == ErrorInfo(reason=reason, domain=DOMAIN)


def test_a_deadline_names_its_mail() -> None:
    """ErrorInfo holds the id of the mail that the caller waited for."""
    status = status_of(DeadlineExceeded("too late", mail_id="m1"))
    assert status.code is Code.DEADLINE_EXCEEDED
    assert status.details == (ErrorInfo(reason="DEADLINE_EXCEEDED", domain=DOMAIN, metadata={"mail_id": "m1"}),)


def test_a_bad_field_is_named() -> None:
    """BadRequest holds the field and what is wrong with it."""
    violation = BadRequest.FieldViolation(field="to[0]", description="is empty")
    assert BadRequest(field_violations=[violation]) in status_of(InvalidArgument("to[0]", "is empty")).details


@pytest.mark.parametrize(
    ("seconds", "milliseconds"), [(1.5, 1500), (0.0, 1), (0.0001, 1), (59.9994, 60_000), (3600.0, 3_600_000)]
)
def test_when_to_retry(seconds: float, milliseconds: int) -> None:
    """RetryInfo is at least a millisecond, and never less than the wait: a client must not retry too soon."""
    for error in (Unavailable("x", retry_after=seconds), LimitExceeded("address", "x", retry_after=seconds)):
        (info,) = [detail for detail in status_of(error).details if isinstance(detail, RetryInfo)]
        assert info.retry_delay.ToMilliseconds() == milliseconds


@pytest.mark.parametrize(
    ("error", "subject", "setting"),
    [
        (QueueFull(3), "queue", "QUEUE_SIZE"),
        (MemoryFull(), "memory", "MEMORY_MAX_MB"),
        (ShareSpent("it has 3", "queue_share"), "share", "queue_share"),
    ],
)
def test_a_limit_is_named(error: LimitExceeded, subject: str, setting: str) -> None:
    """QuotaFailure holds the subject of the limit, and what sets it."""
    (failure,) = [d for d in status_of(error).details if isinstance(d, QuotaFailure)]
    assert (failure.violations[0].subject, failure.violations[0].quota_id) == (subject, setting)


def test_an_unexpected_error_has_a_fixed_message_and_an_id() -> None:
    """The status is INTERNAL, and holds nothing but the id under which the log has the traceback."""
    status = internal_error("0123abcd")
    assert status.code is Code.INTERNAL
    assert "0123abcd" in status.message
    assert status.message.replace("0123abcd", "") == internal_error("x").message.replace(" x;", " ;")
    assert status.details == (ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"error_id": "0123abcd"}),)


async def test_aborting_sends_the_details() -> None:
    """A client finds code, message and details in `grpc-status-details-bin`, as google.rpc.Status."""
    given: list[Any] = []

    class Context:
        async def abort(self, *arguments: Any) -> None:
            given.extend(arguments)
            raise CallEnded

    with pytest.raises(CallEnded):
        await status_of(InvalidArgument("to", "is empty")).abort(Context())
    code, message, ((key, packed),) = given
    assert (code, message, key) == (Code.INVALID_ARGUMENT, "to: is empty", "grpc-status-details-bin")
    status = Status.FromString(packed)
    assert (status.code, status.message) == (3, "to: is empty")
    info, request = ErrorInfo(), BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(request)
    assert info.domain == "otpmail"
    assert request.field_violations[0].field == "to"
