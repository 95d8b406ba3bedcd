"""Decodes requests of otpmail.v1 into submissions, and their fields into the model."""

import asyncio
import hashlib
from collections.abc import Mapping
from functools import cache
from itertools import islice
from types import MappingProxyType

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from otpmail.address import parse_mailbox, parse_mailboxes
from otpmail.compose.draft import LARGE, MAX_ATTACHMENTS, MAX_HEADERS, Attachment, Draft, Limits
from otpmail.errors import InvalidArgument
from otpmail.mail.submission import Submission
from otpmail.model import Priority, WaitFor
from otpmail.v1 import mail_pb2

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
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


async def submission_from(request: mail_pb2.SendMailRequest, limits: Limits) -> Submission:
    """Decode a request for a mail and check its draft.

    Raises InvalidArgument, which names the first field that is not good.
    """
    text, html = request.text, request.html
    files = _files(request) if request.attachments else ()
    size = len(text) + len(html)
    if files:
        size += sum([len(file.content) for file in files])
    # 10 MiB take tens of milliseconds. In a thread they hold the loop for less: hashlib releases the interpreter.
    if size > LARGE:
        draft, fingerprint = await asyncio.to_thread(_read, request, text, html, files, limits)
    else:
        draft, fingerprint = _read(request, text, html, files, limits)
    return Submission(
        draft=draft,
        priority=priority_from(request.priority),
        wait_for=wait_for_from(request.wait_for),
        ttl=ttl_from(request.ttl) if request.HasField("ttl") else None,
        request_id=request.request_id,
        fingerprint=fingerprint,
    )


def _read(
    request: mail_pb2.SendMailRequest, text: str, html: str, files: tuple[Attachment, ...], limits: Limits
) -> tuple[Draft, bytes]:
    """The draft, and the fingerprint where the request has an id.

    A request may hold millions of entries, so each list is read to one entry beyond its limit, which then refuses it.
    """
    cc, bcc, most = request.cc, request.bcc, limits.recipients
    sender, reply_to = getattr(request, "from"), request.reply_to
    draft = Draft(
        limits=limits,
        to=parse_mailboxes(request.to[: most + 1], "to", most=most),  # a slice is copied in C, in half the time
        cc=parse_mailboxes(cc[: most + 1], "cc", most=most) if cc else (),
        bcc=parse_mailboxes(bcc[: most + 1], "bcc", most=most) if bcc else (),
        subject=request.subject,
        text=text,
        html=html,
        sender=parse_mailbox(sender, "from") if sender else None,
        reply_to=parse_mailbox(reply_to, "reply_to") if reply_to else None,
        headers=dict(islice(request.headers.items(), MAX_HEADERS + 1)) if request.headers else _NO_HEADERS,
        attachments=files,
    )
    return draft, fingerprint_of(request) if request.request_id else b""


def _files(request: mail_pb2.SendMailRequest) -> tuple[Attachment, ...]:
    return tuple(
        [
            Attachment(item.filename, item.content_type, item.content, item.content_id)
            for item in request.attachments[: MAX_ATTACHMENTS + 1]
        ]
    )


def priority_from(value: int) -> Priority:
    """A request's priority. Raises InvalidArgument for a number the contract does not have."""
    try:
        return _PRIORITIES[value]
    except KeyError:
        raise InvalidArgument("priority", f"{value} is not a Priority") from None


def wait_for_from(value: int) -> WaitFor:
    """The event that a request's answer waits for. Raises InvalidArgument for a number the contract does not have."""
    try:
        return _WAIT_FOR[value]
    except KeyError:
        raise InvalidArgument("wait_for", f"{value} is not a WaitFor") from None


def ttl_from(duration: Duration) -> float:
    """A Duration in seconds. Raises InvalidArgument naming `ttl` beyond the range that duration.proto gives."""
    if abs(duration.seconds) > 315_576_000_000 or abs(duration.nanos) > 999_999_999:
        raise InvalidArgument("ttl", "is not a Duration")
    return duration.seconds + duration.nanos / 1e9


def fingerprint_of(request: Message) -> bytes:
    """A digest of a request and its kind, equal only where a repeated request id means the same request."""
    kind = _kind(type(request))  # type: ignore[arg-type]  # a class is hashable, even if its objects are not
    return hashlib.sha256(kind + request.SerializeToString(deterministic=True)).digest()


@cache
def _kind(message: type[Message]) -> bytes:
    return message.DESCRIPTOR.full_name.encode() + b"\0"
