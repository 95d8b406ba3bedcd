"""A gRPC server that sends nothing: it answers one round trip after it was asked. What it does is the most there is.

It shows what gRPC, the callers and the machine leave to a sender, so that none of them is taken for the sender.
"""

import argparse
import asyncio
from typing import Any

import uvloop

from benchmarks.peers.serving import serve
from otpmail.original import mail_pb2, mail_pb2_grpc


class Echo(mail_pb2_grpc.MailServiceServicer):
    """mail.MailService with a relay that is imagined, `round_trip` seconds away."""

    def __init__(self, round_trip: float) -> None:
        self._round_trip = round_trip

    async def SendMail(  # noqa: N802  the contract's name
        self,
        request: mail_pb2.SendEmailRequest,  # noqa: ARG002
        context: Any,  # noqa: ARG002
    ) -> mail_pb2.SendEmailResponse:
        """Wait, and say that it went well."""
        await asyncio.sleep(self._round_trip)
        return mail_pb2.SendEmailResponse(status=mail_pb2.SUCCESS)


def main() -> None:
    """Serve as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rtt", type=float, default=0, help="the round trip, in milliseconds")
    uvloop.run(serve(Echo(parser.parse_args().rtt / 1000)))


if __name__ == "__main__":
    main()
