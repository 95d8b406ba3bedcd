"""otpmail.v1.MailService."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from otpmail.mail.service import MailService
from otpmail.model import ANONYMOUS
from otpmail.rpc import encode
from otpmail.rpc.decode import submission_from
from otpmail.rpc.stream import Streams
from otpmail.v1 import mail_pb2, mail_pb2_grpc

Context = Any  # generated stubs name a context type that exists for the type checker alone


class MailServicer(mail_pb2_grpc.MailServiceServicer):
    """Decodes and encodes; the use cases are `mail.service.MailService`'s."""

    def __init__(self, mails: MailService, streams: Streams) -> None:
        self._mails = mails
        self._streams = streams

    async def SendMail(self, request: mail_pb2.SendMailRequest, context: Context) -> mail_pb2.SendMailResponse:
        """Send one mail."""
        mail = await self._mails.send(await submission_from(request, self._mails.limits))
        response = mail_pb2.SendMailResponse()
        encode.fill_mail(response.mail, mail)
        return response

    async def SendMails(  # type: ignore[override]  # the stubs know generators, grpc.aio also calls that read and write
        self, request_iterator: AsyncIterator[mail_pb2.SendMailsRequest], context: Context
    ) -> None:
        """Send many mails over one stream."""
        await self._streams.serve(context)

    async def GetMail(self, request: mail_pb2.GetMailRequest, context: Context) -> mail_pb2.Mail:
        """Say what has become of a mail."""
        return encode.mail_message(await self._mails.get(ANONYMOUS, request.id))

    async def WatchMail(self, request: mail_pb2.WatchMailRequest, context: Context) -> AsyncIterator[mail_pb2.Mail]:
        """Say every state of a mail until it settles."""
        async with aclosing(self._mails.watch(ANONYMOUS, request.id)) as mails:
            async for mail in mails:
                yield encode.mail_message(mail)

    async def CancelMail(self, request: mail_pb2.CancelMailRequest, context: Context) -> mail_pb2.Mail:
        """Take a waiting mail back."""
        return encode.mail_message(await self._mails.cancel(ANONYMOUS, request.id))
