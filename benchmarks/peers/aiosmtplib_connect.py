"""The other peer: a gRPC server that connects, signs in and leaves again for each mail, so many at a time.

What is written first, since a library's own example shows it: TCP, TLS, EHLO, AUTH, the mail, QUIT.
"""

import argparse
import asyncio
import ssl
from typing import Any

import aiosmtplib
import uvloop

from benchmarks.peers.aiosmtplib_pool import message
from benchmarks.peers.serving import serve
from benchmarks.wire import PASSWORD, USER
from otpmail.original import mail_pb2, mail_pb2_grpc


class Connecting(mail_pb2_grpc.MailServiceServicer):
    """mail.MailService with a connection for each mail, at most `at_once` of them open."""

    def __init__(self, port: int, ca_file: str, at_once: int) -> None:
        self._port = port
        self._tls = ssl.create_default_context(cafile=ca_file)
        self._room = asyncio.Semaphore(at_once)

    async def SendMail(  # noqa: N802  the contract's name
        self,
        request: mail_pb2.SendEmailRequest,
        context: Any,  # noqa: ARG002
    ) -> mail_pb2.SendEmailResponse:
        """Send one mail on a connection of its own."""
        async with self._room:
            await aiosmtplib.send(
                message(request.to, request.subject, request.body),
                hostname="127.0.0.1",
                port=self._port,
                use_tls=True,
                tls_context=self._tls,
                username=USER,
                password=PASSWORD,
            )
        return mail_pb2.SendEmailResponse(status=mail_pb2.SUCCESS)


async def serve_connecting(port: int, ca_file: str, at_once: int) -> None:
    """Serve."""
    await serve(Connecting(port, ca_file, at_once))


def main() -> None:
    """Serve as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca-file", required=True)
    parser.add_argument("--at-once", type=int, default=5)
    given = parser.parse_args()
    uvloop.run(serve_connecting(given.port, given.ca_file, given.at_once))


if __name__ == "__main__":
    main()
