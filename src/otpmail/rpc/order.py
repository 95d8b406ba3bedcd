"""From a request of otpmail.v1 for a mail to the order that it means."""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType

from otpmail.mail.draft import Attachment, Draft
from otpmail.mail.service import Order
from otpmail.rpc import convert
from otpmail.v1 import mail_pb2

_LARGE = 1 << 20
_NONE: Mapping[str, str] = MappingProxyType({})


async def order_of(request: mail_pb2.SendMailRequest) -> Order:
    """The order that a request means. Raises InvalidArgument for enum numbers and durations that are none."""
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
        fingerprint = await asyncio.to_thread(convert.fingerprint, request) if large else convert.fingerprint(request)
    return Order(
        draft=draft,
        priority=convert.priority(request.priority),
        wait_for=convert.wait_for(request.wait_for),
        ttl=convert.seconds(request.ttl) if request.HasField("ttl") else None,
        request_id=request.request_id,
        fingerprint=fingerprint,
    )


def _attachments(request: mail_pb2.SendMailRequest) -> tuple[Attachment, ...]:
    return tuple(
        Attachment(item.filename, item.content_type, item.content, item.content_id) for item in request.attachments
    )
