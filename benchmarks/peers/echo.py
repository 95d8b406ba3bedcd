"""A gRPC server that sends nothing: it answers one round trip after each call came.

Its figures show how much of a measurement is due to gRPC, the callers and the machine. No service on grpc.aio is
faster.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from typing import Any

import uvloop

from benchmarks.peers.serving import serve
from otpmail.api.batching import Batching
from otpmail.original import mail_pb2, mail_pb2_grpc
from otpmail.v1 import mail_pb2 as v1_mail_pb2
from otpmail.v1 import mail_pb2_grpc as v1_mail_pb2_grpc
from otpmail.v1 import otp_pb2, otp_pb2_grpc


class Echo(mail_pb2_grpc.MailServiceServicer):
    """mail.MailService with an imagined relay, `round_trip` seconds away.

    With `batching` it holds calls back under load, as otpmail does.
    """

    def __init__(self, round_trip: float, batching: Batching | None) -> None:
        self._round_trip = round_trip
        self._batching = batching
        self._running = 0

    async def SendMail(  # noqa: N802  the contract's name
        self,
        request: mail_pb2.SendEmailRequest,  # noqa: ARG002
        context: Any,  # noqa: ARG002
    ) -> mail_pb2.SendEmailResponse:
        """Wait one round trip, and answer SUCCESS."""
        if self._batching is not None:
            await self._wait(self._batching)
        if self._round_trip:
            await asyncio.sleep(self._round_trip)
        return mail_pb2.SendEmailResponse(status=mail_pb2.SUCCESS)

    async def _wait(self, batching: Batching) -> None:
        self._running += 1
        try:
            batch = batching.take(self._running)
            if batch is not None:
                await batch
        finally:
            self._running -= 1


class EchoMails(v1_mail_pb2_grpc.MailServiceServicer):
    """otpmail.v1.MailService that sends nothing, and answers RELAYED for each mail of a batch."""

    async def SendMails(  # noqa: N802  the contract's name; the stubs know no async ones
        self,
        request_iterator: AsyncIterator[v1_mail_pb2.SendMailsRequest],
        context: Any,  # noqa: ARG002
    ) -> AsyncIterator[v1_mail_pb2.SendMailsResponse]:
        """Answer each batch with its results."""
        async for batch in request_iterator:
            response = v1_mail_pb2.SendMailsResponse()
            for mail in batch.mails:
                result = response.results.add(request_id=mail.request_id)
                result.mail.state = v1_mail_pb2.Mail.STATE_RELAYED
            yield response


class EchoCodes(otp_pb2_grpc.OtpServiceServicer):
    """otpmail.v1.OtpService that mails nothing, and accepts every code."""

    async def SendCode(  # noqa: N802  the contract's name
        self,
        request: otp_pb2.SendCodeRequest,  # noqa: ARG002
        context: Any,  # noqa: ARG002
    ) -> otp_pb2.SendCodeResponse:
        """Answer RELAYED."""
        return otp_pb2.SendCodeResponse(mail=v1_mail_pb2.Mail(state=v1_mail_pb2.Mail.STATE_RELAYED))

    async def ValidateCode(  # noqa: N802  the contract's name
        self,
        request: otp_pb2.ValidateCodeRequest,  # noqa: ARG002
        context: Any,  # noqa: ARG002
    ) -> otp_pb2.ValidateCodeResponse:
        """Answer VALID."""
        return otp_pb2.ValidateCodeResponse(result=otp_pb2.ValidateCodeResponse.RESULT_VALID)


async def run(given: argparse.Namespace) -> None:
    """Serve until killed."""
    await serve(
        Echo(given.rtt / 1000, Batching() if given.batching else None),
        EchoCodes(),  # type: ignore[abstract]  # gRPC answers UNIMPLEMENTED for the other methods
        EchoMails(),  # type: ignore[abstract]
    )


def main() -> None:
    """Run the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rtt", type=float, default=0, help="the round trip, in milliseconds")
    parser.add_argument(
        "--batching", action="store_true", help="hold calls of SendMail back under load, as otpmail does"
    )
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
