"""otpmail.v1.MailService/SendMails: batches into a `mail.stream.MailStream`, and its outcomes back.

Each stream has two tasks: the call's own task writes, and one more reads. Neither gets ahead of the other by more than
STREAM_UNSETTLED mails, and a write ends only when the caller's flow control has let it through.
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from otpmail.api import encode
from otpmail.api.auth import Admit
from otpmail.api.batches import BatchReader
from otpmail.api.calls import Context, by_caller
from otpmail.api.reads import Reads, ReadTooSlow
from otpmail.api.status import status_for
from otpmail.errors import CallerError, InvalidArgument, MemoryFull, PermissionDenied, Unauthenticated
from otpmail.mail.stream import MailStream, Outcome
from otpmail.model import Mail
from otpmail.v1 import mail_pb2

METHOD = "/otpmail.v1.MailService/SendMails"
_MOST_RESULTS = 100  # in one response: other tasks have the loop between two
_MOST_RECIPIENTS = 1000  # in one response, which is so far below the 4 MiB that clients take


async def serve_stream(
    context: Context, stream: MailStream, batches: BatchReader, reads: Reads, admit: Admit | None = None
) -> None:
    """Serve one call until its caller has closed it or the service stops, and all is answered; or until it fails.

    A stream may last for weeks, so `admit` is asked at each batch whether its caller may still call.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_read(context, stream, batches, reads, admit))
            ended = await _answer(context, stream, reads)
    finally:
        stream.leave()
    if ended is not None:
        raise ended


async def _read(context: Context, stream: MailStream, batches: BatchReader, reads: Reads, admit: Admit | None) -> None:
    refuse = partial(stream.close, ReadTooSlow())
    while True:
        try:
            octets = await reads.read_batch(context, refuse)
        except reads.ended:  # the call is over, by `_answer` or by the end of the server
            return
        except CallerError as error:  # of a door that reads another form than protobuf
            stream.close(error.with_traceback(None))
            return
        if not isinstance(octets, bytes):  # the end
            stream.close()
            return
        try:
            if admit is not None:
                stream.call = by_caller(stream.call, admit(METHOD, context))
            with ExitStack() as counted:
                counted.enter_context(reads.counted(octets))
                await stream.begin()
                mails, decode = batches.read(octets)
                await stream.take(mails, decode)
                stream.call_when_kept(counted.pop_all().close)
        except (InvalidArgument, MemoryFull, PermissionDenied, Unauthenticated) as error:
            stream.close(error.with_traceback(None))  # whose frames would keep the batch until the stream ends
            return
        del octets, mails  # the next one may be long in coming


async def _answer(context: Context, stream: MailStream, reads: Reads) -> Exception | None:
    """Write outcomes until none are left. Returns the error that ends the call, None where its caller has closed it."""
    try:
        while outcomes := await stream.outcomes():
            for response in _responses(outcomes):
                await context.write(response)
                stream.answered(len(response.results))
        if stream.fault is not None:
            # Not by raising here: that would cancel the read, into whose memory gRPC's core may be writing. It ends by
            # the status.
            await status_for(METHOD, stream.fault).abort(context)
    except reads.ended as error:  # AbortError, or the caller is gone
        return error
    return None


def _responses(outcomes: list[Outcome]) -> Iterator[mail_pb2.SendMailsResponse]:
    """Yield the outcomes in responses, none of which is too large to be received."""
    response = mail_pb2.SendMailsResponse()
    results = recipients = 0
    for request_id, told in outcomes:
        if results == _MOST_RESULTS or recipients >= _MOST_RECIPIENTS:
            yield response
            response = mail_pb2.SendMailsResponse()
            results = recipients = 0
        results += 1
        result = response.results.add()
        result.request_id = request_id
        if isinstance(told, Mail):
            recipients += len(told.recipients)
            try:
                encode.fill_mail(result.mail, told)
            except Exception as error:  # noqa: BLE001  a fault of ours over one mail is not to end the others' stream
                result.ClearField("mail")
                _fill_error(result, error)
        else:
            recipients += 1
            _fill_error(result, told)
    yield response


def _fill_error(result: mail_pb2.SendMailsResponse.Result, error: Exception) -> None:
    status = status_for(METHOD, error)
    result.code = status.code.number
    result.message = status.message
