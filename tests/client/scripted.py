"""A service of otpmail.v1 whose answers a test writes down, for what the real one does rarely."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import grpc.aio
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from otpmail.v1 import mail_pb2_grpc, otp_pb2_grpc

if TYPE_CHECKING:
    from types import TracebackType

    from google.protobuf.message import Message


class Failure:
    """A status to answer with, and its details: none means that it is gRPC's own."""

    def __init__(
        self, code: grpc.StatusCode, text: str = "", *details: Message, reason: str = "", retry_after: float = 0
    ) -> None:
        self.code, self.text = code, text
        self.details = [*details]
        if reason:
            self.details.append(ErrorInfo(reason=reason, domain="otpmail"))
        if retry_after:
            delay = Duration()
            delay.FromMilliseconds(int(1000 * retry_after))
            self.details.append(RetryInfo(retry_delay=delay))

    async def abort(self, context: Any) -> None:
        """End a call with it."""
        status = Status(code=self.code.value[0], message=self.text)
        for detail in self.details:
            packed = Packed()
            packed.Pack(detail)
            status.details.append(packed)
        trailers = (("grpc-status-details-bin", status.SerializeToString()),) if self.details else ()
        await context.abort(self.code, self.text, trailers)


class Scripted(otp_pb2_grpc.OtpServiceServicer, mail_pb2_grpc.MailServiceServicer):
    """Answers each call with the next of `answers`, and keeps the requests, their metadata and the time left."""

    def __init__(self, *answers: Any, credentials: grpc.ServerCredentials | None = None) -> None:
        self._credentials = credentials
        self.answers = list(answers)
        self.requests: list[Any] = []
        self.metadata: list[dict[str, Any]] = []
        self.left: list[float | None] = []
        self.address = ""

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server()
        otp_pb2_grpc.add_OtpServiceServicer_to_server(self, self._server)
        mail_pb2_grpc.add_MailServiceServicer_to_server(self, self._server)
        anywhere = "127.0.0.1:0"
        if self._credentials is None:
            port = self._server.add_insecure_port(anywhere)
        else:
            port = self._server.add_secure_port(anywhere, self._credentials)
        self.address = f"127.0.0.1:{port}"
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.stop(0)

    def _note(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.left.append(context.time_remaining())

    async def _answer(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        answer = self.answers.pop(0)
        if isinstance(answer, Failure):
            await answer.abort(context)
        if answer is None:
            await asyncio.Event().wait()  # until the call ends
        return answer

    async def _stream(self, context: Any) -> Any:
        for answer in self.answers.pop(0):
            if isinstance(answer, Failure):
                await answer.abort(context)
            if answer is None:
                await asyncio.Event().wait()  # until the call ends
            if isinstance(answer, asyncio.Event):
                await answer.wait()
            else:
                yield answer

    SendCode = ValidateCode = RevokeCode = SendMail = GetMail = CancelMail = RetryMail = ListMails = _answer

    async def WatchMail(self, request: Any, context: Any) -> Any:  # noqa: N802 -- the contract's name
        """Stream the next list of answers."""
        self._note(request, context)
        async for answer in self._stream(context):
            yield answer

    async def SendMails(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802 -- the contract's name
        """Take one batch, then stream the next list of answers. A stream without a batch ends at once."""
        async for request in request_iterator:
            self._note(request, context)
            async for answer in self._stream(context):
                yield answer
            return
