"""A gRPC server that sends nothing: it answers one round trip after it was asked. What it does is the most there is.

It shows what gRPC, the callers and the machine leave to a sender, so that none of them is taken for the sender.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from typing import Any

import uvloop

from benchmarks.peers.serving import serve
from otpmail.original import mail_pb2, mail_pb2_grpc
from otpmail.rpc.batching import Batching
from otpmail.v1 import mail_pb2 as v1_mail_pb2
from otpmail.v1 import mail_pb2_grpc as v1_mail_pb2_grpc
from otpmail.v1 import otp_pb2, otp_pb2_grpc


class Echo(mail_pb2_grpc.MailServiceServicer):
    """mail.MailService with a relay that is imagined, `round_trip` seconds away. `turns`: calls begin as ours do."""

    def __init__(self, round_trip: float, turns: Batching | None) -> None:
        self._round_trip = round_trip
        self._batching = turns
        self._running = 0

    async def SendMail(  # noqa: N802  the contract's name
        self,
        request: mail_pb2.SendEmailRequest,  # noqa: ARG002
        context: Any,  # noqa: ARG002
    ) -> mail_pb2.SendEmailResponse:
        """Wait, and say that it went well."""
        if self._batching is not None:
            await self._wait(self._batching)
        if self._round_trip:
            await asyncio.sleep(self._round_trip)
        return mail_pb2.SendEmailResponse(status=mail_pb2.SUCCESS)

    async def _wait(self, turns: Batching) -> None:
        self._running += 1
        try:
            turn = turns.take(self._running)
            if turn is not None:
                await turn
        finally:
            self._running -= 1


class EchoMails(v1_mail_pb2_grpc.MailServiceServicer):
    """otpmail.v1.MailService that sends nothing, and says of each mail of a batch that it was relayed."""

    async def SendMails(  # type: ignore[override]  # noqa: N802  the contract's name; the stubs know no async ones
        self,
        request_iterator: AsyncIterator[v1_mail_pb2.SendMailsRequest],
        context: Any,  # noqa: ARG002
    ) -> AsyncIterator[v1_mail_pb2.SendMailsResponse]:
        """Answer each batch with its results."""
        async for batch in request_iterator:
            response = v1_mail_pb2.SendMailsResponse()
            for mail in batch.mails:
                result = response.results.add(request_id=mail.request_id)
                result.mail.state = v1_mail_pb2.Mail.RELAYED
            yield response


class EchoCodes(otp_pb2_grpc.OtpServiceServicer):
    """otpmail.v1.OtpService that mails nothing, and to which every code is right."""

    async def SendCode(  # noqa: N802  the contract's name
        self,
        request: otp_pb2.SendCodeRequest,  # noqa: ARG002
        context: Any,  # noqa: ARG002
    ) -> otp_pb2.SendCodeResponse:
        """Say that it was mailed."""
        return otp_pb2.SendCodeResponse(mail=v1_mail_pb2.Mail(state=v1_mail_pb2.Mail.RELAYED))

    async def ValidateCode(  # noqa: N802  the contract's name
        self,
        request: otp_pb2.ValidateCodeRequest,  # noqa: ARG002
        context: Any,  # noqa: ARG002
    ) -> otp_pb2.ValidateCodeResponse:
        """Say that it is valid."""
        return otp_pb2.ValidateCodeResponse(result=otp_pb2.ValidateCodeResponse.VALID)


async def run(given: argparse.Namespace) -> None:
    """Serve as the arguments say."""
    await serve(Echo(given.rtt / 1000, Batching() if given.turns else None), EchoCodes(), EchoMails())


def main() -> None:
    """Serve as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rtt", type=float, default=0, help="the round trip, in milliseconds")
    parser.add_argument("--turns", action="store_true", help="let calls of SendMail begin in turns, as otpmail does")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
