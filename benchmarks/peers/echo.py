"""A gRPC server that sends nothing: it answers one round trip after it was asked. What it does is the most there is.

It shows what gRPC, the callers and the machine leave to a sender, so that none of them is taken for the sender.
"""

import argparse
import asyncio
import json
from typing import Any

import grpc.aio
import uvloop

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


async def serve(round_trip: float) -> None:
    """Serve on a port of the loopback, which is printed, until killed."""
    server = grpc.aio.server()
    mail_pb2_grpc.add_MailServiceServicer_to_server(Echo(round_trip), server)
    own = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"address": f"127.0.0.1:{own}"}), flush=True)
    await server.wait_for_termination()


def main() -> None:
    """Serve as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rtt", type=float, default=0, help="the round trip, in milliseconds")
    uvloop.run(serve(parser.parse_args().rtt / 1000))


if __name__ == "__main__":
    main()
