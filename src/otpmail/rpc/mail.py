"""otpmail.v1.MailService."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from otpmail.mail.draft import Attachment, Draft
from otpmail.mail.service import MailService, Order
from otpmail.model import ANONYMOUS
from otpmail.rpc import convert
from otpmail.v1 import mail_pb2, mail_pb2_grpc

_LARGE = 1 << 20

Context = Any  # generated stubs name a context type that exists for the type checker alone


class MailServicer(mail_pb2_grpc.MailServiceServicer):
    """Decodes and encodes; the use cases are `mail.service.MailService`'s."""

    def __init__(self, mails: MailService) -> None:
        self._mails = mails

    async def SendMail(self, request: mail_pb2.SendMailRequest, context: Context) -> mail_pb2.SendMailResponse:
        """Send one mail."""
        mail = await self._mails.send(await order_of(request))
        return mail_pb2.SendMailResponse(mail=convert.mail_message(mail))

    async def SendMails(
        self, request_iterator: AsyncIterator[mail_pb2.SendMailsRequest], context: Context
    ) -> AsyncIterator[mail_pb2.SendMailsResponse]:
        """Not offered by this version: UNIMPLEMENTED, as from a server that does not know the method."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this version of otpmail does not offer SendMails")
        yield mail_pb2.SendMailsResponse()  # never reached; it makes this the stream that the contract declares

    async def GetMail(self, request: mail_pb2.GetMailRequest, context: Context) -> mail_pb2.Mail:
        """Say what has become of a mail."""
        return convert.mail_message(await self._mails.get(ANONYMOUS, request.id))

    async def WatchMail(self, request: mail_pb2.WatchMailRequest, context: Context) -> AsyncIterator[mail_pb2.Mail]:
        """Say every state of a mail until it settles."""
        async with aclosing(self._mails.watch(ANONYMOUS, request.id)) as mails:
            async for mail in mails:
                yield convert.mail_message(mail)

    async def CancelMail(self, request: mail_pb2.CancelMailRequest, context: Context) -> mail_pb2.Mail:
        """Take a waiting mail back."""
        return convert.mail_message(await self._mails.cancel(ANONYMOUS, request.id))


async def order_of(request: mail_pb2.SendMailRequest) -> Order:
    """The order that a request means. Raises InvalidArgument for enum numbers and durations that are none."""
    draft = Draft(
        to=tuple(request.to),
        cc=tuple(request.cc),
        bcc=tuple(request.bcc),
        subject=request.subject,
        text=request.text,
        html=request.html,
        from_=getattr(request, "from"),
        reply_to=request.reply_to,
        headers=dict(request.headers),
        attachments=tuple(
            Attachment(item.filename, item.content_type, item.content, item.content_id) for item in request.attachments
        ),
    )
    return Order(
        draft=draft,
        priority=convert.priority(request.priority),
        wait_for=convert.wait_for(request.wait_for),
        ttl=convert.seconds(request.ttl) if request.HasField("ttl") else None,
        request_id=request.request_id,
        fingerprint=await _fingerprint(request, draft.size) if request.request_id else b"",
    )


async def _fingerprint(request: mail_pb2.SendMailRequest, size: int) -> bytes:
    # Of the 12 ms that ten MiB take, a thread holds the loop for 5: hashlib lets go of the interpreter.
    return await asyncio.to_thread(convert.fingerprint, request) if size > _LARGE else convert.fingerprint(request)
