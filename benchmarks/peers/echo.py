"""A gRPC server that sends nothing: it answers one round trip after it was asked. What it does is the most there is.

It shows what gRPC, the callers and the machine leave to a sender, so that none of them is taken for the sender.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import uvloop

from benchmarks.peers.serving import serve
from otpmail.original import mail_pb2, mail_pb2_grpc
from otpmail.v1 import mail_pb2 as v1_mail_pb2
from otpmail.v1 import mail_pb2_grpc as v1_mail_pb2_grpc
from otpmail.v1 import otp_pb2, otp_pb2_grpc


class Echo(mail_pb2_grpc.MailServiceServicer):
    """mail.MailService with a relay that is imagined, `round_trip` seconds away; a mail keeps the loop for `work`."""

    def __init__(self, round_trip: float, work: float) -> None:
        self._round_trip = round_trip
        self._work = work

    async def SendMail(  # noqa: N802  the contract's name
        self,
        request: mail_pb2.SendEmailRequest,  # noqa: ARG002
        context: Any,  # noqa: ARG002
    ) -> mail_pb2.SendEmailResponse:
        """Wait, and say that it went well."""
        if self._work:
            ends = time.perf_counter() + self._work
            while time.perf_counter() < ends:
                pass
        if self._round_trip:
            await asyncio.sleep(self._round_trip)
        return mail_pb2.SendEmailResponse(status=mail_pb2.SUCCESS)


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


def main() -> None:
    """Serve as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rtt", type=float, default=0, help="the round trip, in milliseconds")
    parser.add_argument("--work", type=float, default=0, help="how long a mail keeps the loop, in microseconds")
    given = parser.parse_args()
    uvloop.run(serve(Echo(given.rtt / 1000, given.work / 1e6), EchoCodes(), EchoMails()))


if __name__ == "__main__":
    main()
