"""Small helpers for tests that call the service: many mails, an error's details, mails back from bytes, metrics."""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from email import message_from_bytes, policy
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status
from grpc.aio import AioRpcError

from otpmail.v1 import mail_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from email.message import EmailMessage

    from service import Service

DetailT = TypeVar("DetailT", bound=Message)
_WORDS_OF_GRPC = "Deadline Exceeded"
_TRIES = 20


async def send_to(service: Service, people: Sequence[str], *, at_once: int = 100) -> dict[str, mail_pb2.Mail]:
    """Send each person a mail that names them, with so many calls at once; returns the answers by person."""
    told: dict[str, mail_pb2.Mail] = {}
    remaining = iter(people)

    async def caller() -> None:
        for person in remaining:
            request = mail_pb2.SendMailRequest(to=[person], subject=person, text=f"for {person}.")
            told[person] = (await service.mail.SendMail(request)).mail

    async with asyncio.TaskGroup() as callers:
        for _ in range(at_once):
            callers.create_task(caller())
    return told


async def refused_before_deadline(call: Callable[[], Awaitable[object]]) -> AioRpcError:
    """Make a call until the service ends it, and return its error.

    The service answers a fifth of a second before a deadline of some seconds. A client that gets no processor for that
    long sees the words of gRPC in place of the service's, and calls again.
    """
    for _ in range(_TRIES):
        try:
            await call()
        except AioRpcError as error:
            if error.details() != _WORDS_OF_GRPC:
                return error
        else:
            message = "the call was not refused"
            raise AssertionError(message)
    message = f"no answer came before the deadline in {_TRIES} calls"
    raise AssertionError(message)


def detail(error: AioRpcError, kind: type[DetailT]) -> DetailT:
    """Return the detail of that kind, which the error must have."""
    status = Status.FromString(dict(error.trailing_metadata() or ())["grpc-status-details-bin"])
    for packed in status.details:
        unpacked = kind()
        if packed.Unpack(unpacked):
            return unpacked
    message = f"no {kind.__name__} in {status}"
    raise AssertionError(message)


def bad_field(error: AioRpcError) -> str:
    """Return the field that a BadRequest names."""
    return str(detail(error, BadRequest).field_violations[0].field)


def reason(error: AioRpcError) -> str:
    """Return the error's stable reason."""
    return str(detail(error, ErrorInfo).reason)


def retry_seconds(error: AioRpcError) -> float:
    """Return how long the error says to wait."""
    delay = detail(error, RetryInfo).retry_delay
    return float(delay.seconds + delay.nanos / 1e9)


def quota_subject(error: AioRpcError) -> str:
    """Return whose quota was exceeded."""
    return str(detail(error, QuotaFailure).violations[0].subject)


def quota_setting(error: AioRpcError) -> str:
    """Return the setting whose quota was exceeded."""
    return str(detail(error, QuotaFailure).violations[0].quota_id)


def parsed(content: bytes) -> EmailMessage:
    """Parse a mail as a mail client would."""
    return message_from_bytes(content, policy=policy.default)


def text_of(content: bytes) -> str:
    """Return the text part of a mail, with the line ends that Python uses."""
    body = parsed(content).get_body(("plain",))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


async def metrics_text(service: Service) -> str:
    """Return the metrics of a service with HTTP_PORT, as it answers them."""
    (line,) = service.logged("metrics")

    def get() -> str:
        url = str(line["url"])
        context = ssl._create_unverified_context() if url.startswith("https") else None
        with urllib.request.urlopen(url, timeout=10, context=context) as response:
            return str(response.read().decode())

    return await asyncio.to_thread(get)


async def scrape(service: Service) -> dict[str, float]:
    """Return the metrics by name, labels included, of a service with HTTP_PORT."""
    text = await metrics_text(service)
    parted = (row.rpartition(" ") for row in text.splitlines() if not row.startswith("#"))
    return {name: float(value) for name, _, value in parted}
