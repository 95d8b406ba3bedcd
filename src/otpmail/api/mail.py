"""otpmail.v1.MailService: decodes requests, and encodes what `mail.service` answers."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from itertools import count

from otpmail.api import decode, encode
from otpmail.api.auth import Admit
from otpmail.api.batches import BatchReader
from otpmail.api.calls import Context, call_from, stream_call_from
from otpmail.api.decode import submission_from
from otpmail.api.reads import Reads
from otpmail.api.stream import serve_stream
from otpmail.callers import Call, Caller
from otpmail.mail.listing import Query
from otpmail.mail.service import MailService
from otpmail.mail.stream import MailStream
from otpmail.model import Mail
from otpmail.v1 import mail_pb2, mail_pb2_grpc

_STEP = 100  # mails that are encoded in a turn: a millisecond

_Named = mail_pb2.GetMailRequest | mail_pb2.WatchMailRequest | mail_pb2.CancelMailRequest | mail_pb2.RetryMailRequest
"""A request that names a mail."""


class MailServicer(mail_pb2_grpc.MailServiceServicer):
    """Serves `mail.service.MailService`. A stream has at most `most_unsettled` mails outstanding.

    `admit` is asked again who calls before each batch of a stream.
    """

    def __init__(self, mails: MailService, reads: Reads, *, most_unsettled: int, admit: Admit | None = None) -> None:
        self._mails = mails
        self._admit = admit
        self._reads = reads
        self._most_unsettled = most_unsettled
        self._streams = count(1)
        self._batches = BatchReader(mails.limits, mails.cooperator, mails.admission.turns.wait)

    async def SendMail(self, request: mail_pb2.SendMailRequest, context: Context) -> mail_pb2.SendMailResponse:
        """Send one mail."""
        mails = self._mails
        submission = await submission_from(request, mails.limits, mails.cooperator)
        sending = mails.send(call_from(context), submission)
        del request, submission  # which may be large, and the relay slow
        mail = await sending
        response = mail_pb2.SendMailResponse()
        encode.fill_mail(response.mail, mail)
        return response

    async def SendMails(  # type: ignore[override]  # the stubs know generators, grpc.aio also calls that read and write
        self, request_iterator: AsyncIterator[mail_pb2.SendMailsRequest], context: Context
    ) -> None:
        """Send many mails over one stream, whose requests come as octets."""
        stream = MailStream(self._mails, stream_call_from(context, next(self._streams)), most=self._most_unsettled)
        await serve_stream(context, stream, self._batches, self._reads, self._admit)

    async def GetMail(self, request: mail_pb2.GetMailRequest, context: Context) -> mail_pb2.Mail:
        """Return what has become of a mail."""
        caller = await self._act_for(request, call_from(context))
        return _answer(request, await self._mails.get(caller, request.id, request_id=request.request_id))

    async def WatchMail(self, request: mail_pb2.WatchMailRequest, context: Context) -> AsyncIterator[mail_pb2.Mail]:
        """Yield every state of a mail until it settles."""
        caller = await self._act_for(request, call_from(context))
        watching = self._mails.watch(caller, request.id, request_id=request.request_id)
        async with aclosing(watching) as mails:
            async for mail in mails:
                yield _answer(request, mail)

    async def CancelMail(self, request: mail_pb2.CancelMailRequest, context: Context) -> mail_pb2.Mail:
        """Cancel a waiting mail."""
        caller = await self._act_for(request, call_from(context))
        return _answer(request, await self._mails.cancel(caller, request.id, request_id=request.request_id))

    async def RetryMail(self, request: mail_pb2.RetryMailRequest, context: Context) -> mail_pb2.Mail:
        """Send a mail again that did not reach all of its recipients."""
        call = call_from(context)
        call = replace(call, caller=await self._act_for(request, call))
        return _answer(request, await self._mails.retry(call, request.id))

    async def ListMails(self, request: mail_pb2.ListMailsRequest, context: Context) -> mail_pb2.ListMailsResponse:
        """Return a page of the caller's mails, or of those of others."""
        query = Query(
            page_size=request.page_size,
            page_token=request.page_token,
            caller=request.caller,
            state=decode.state_from(request.state),
            recipient=request.recipient,
            request_id=request.request_id,
        )
        page = await self._mails.list(call_from(context).caller, query)
        response = mail_pb2.ListMailsResponse(next_page_token=page.next_page_token)
        for start in range(0, len(page.mails), _STEP):
            response.mails.extend([_answer(request, mail) for mail in page.mails[start : start + _STEP]])
            await self._mails.admission.turns.wait()
        return response

    async def _act_for(self, request: _Named, call: Call) -> Caller:
        return await self._mails.act_for(call.caller, request.caller, request.id)


def _answer(request: _Named | mail_pb2.ListMailsRequest, mail: Mail) -> mail_pb2.Mail:
    """Encode a mail, with its caller where the request names one."""
    message = encode.mail_message(mail)
    if request.caller:
        message.caller = mail.caller
    return message
