"""Decodes requests of otpmail.v1: the submission that a request for a mail means, and its fields."""

import asyncio
import hashlib
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from otpmail.compose.draft import Attachment, Draft
from otpmail.errors import InvalidArgument
from otpmail.mail.submission import Submission
from otpmail.model import Priority, WaitFor
from otpmail.v1 import mail_pb2

_LARGE = 1 << 20
_PRIORITIES: dict[int, Priority] = {
    mail_pb2.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    mail_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    mail_pb2.PRIORITY_BULK: Priority.BULK,
    mail_pb2.PRIORITY_URGENT: Priority.URGENT,
}
_WAIT_FOR: dict[int, WaitFor] = {
    mail_pb2.WAIT_FOR_UNSPECIFIED: WaitFor.RELAY,
    mail_pb2.WAIT_FOR_RELAY: WaitFor.RELAY,
    mail_pb2.WAIT_FOR_QUEUE: WaitFor.QUEUE,
}
_NONE: Mapping[str, str] = MappingProxyType({})


async def submission_from(request: mail_pb2.SendMailRequest) -> Submission:
    """The submission that a request means. Raises InvalidArgument for enum numbers and durations that are none."""
    cc, bcc = request.cc, request.bcc
    draft = Draft(
        to=tuple(request.to[:]),  # a slice is copied in C, in half the time
        cc=tuple(cc) if cc else (),
        bcc=tuple(bcc) if bcc else (),
        subject=request.subject,
        text=request.text,
        html=request.html,
        from_=getattr(request, "from"),
        reply_to=request.reply_to,
        headers=dict(request.headers) if request.headers else _NONE,
        attachments=_attachments(request) if request.attachments else (),
    )
    fingerprint = b""
    if request.request_id:
        # Of the 12 ms that ten MiB take, a thread holds the loop for 5: hashlib lets go of the interpreter.
        large = draft.size > _LARGE
        fingerprint = await asyncio.to_thread(fingerprint_of, request) if large else fingerprint_of(request)
    return Submission(
        draft=draft,
        priority=priority_from(request.priority),
        wait_for=wait_for_from(request.wait_for),
        ttl=ttl_from(request.ttl) if request.HasField("ttl") else None,
        request_id=request.request_id,
        fingerprint=fingerprint,
    )


def _attachments(request: mail_pb2.SendMailRequest) -> tuple[Attachment, ...]:
    return tuple(
        Attachment(item.filename, item.content_type, item.content, item.content_id) for item in request.attachments
    )


def priority_from(value: int) -> Priority:
    """A request's priority. Raises InvalidArgument for a number the contract does not have."""
    try:
        return _PRIORITIES[value]
    except KeyError:
        raise InvalidArgument("priority", f"{value} is not a Priority") from None


def wait_for_from(value: int) -> WaitFor:
    """What a request's answer waits for. Raises InvalidArgument for a number the contract does not have."""
    try:
        return _WAIT_FOR[value]
    except KeyError:
        raise InvalidArgument("wait_for", f"{value} is not a WaitFor") from None


def ttl_from(duration: Duration) -> float:
    """A Duration in seconds. Raises InvalidArgument naming `ttl` when it is none (duration.proto gives its range)."""
    if abs(duration.seconds) > 315_576_000_000 or abs(duration.nanos) > 999_999_999:
        raise InvalidArgument("ttl", "is not a Duration")
    return duration.seconds + duration.nanos / 1e9


def fingerprint_of(request: Message) -> bytes:
    """What tells whether a repeated request id means the same request, its kind included."""
    kind = _kind(type(request))  # type: ignore[arg-type]  # a class is hashable, whatever its objects are
    return hashlib.sha256(kind + request.SerializeToString(deterministic=True)).digest()


@cache
def _kind(message: type[Message]) -> bytes:
    return message.DESCRIPTOR.full_name.encode() + b"\0"
