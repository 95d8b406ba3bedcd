"""A gRPC server that opens an aiosmtplib connection for each mail, with a limit on how many are open.

A team writes this first, since the library's own example shows it: TCP, TLS, EHLO, AUTH, the mail, QUIT.
"""

import argparse
import asyncio
import ssl
from typing import Any

import aiosmtplib
import uvloop

from benchmarks.peers.aiosmtplib_pool import message
from benchmarks.peers.serving import serve
from benchmarks.smtp_client import PASSWORD, USER
from otpmail.original import mail_pb2, mail_pb2_grpc


class Connecting(mail_pb2_grpc.MailServiceServicer):
    """mail.MailService with a connection for each mail, at most `limit` of them open."""

    def __init__(self, port: int, ca_file: str, limit: int) -> None:
        self._port = port
        self._tls = ssl.create_default_context(cafile=ca_file)
        self._free = asyncio.Semaphore(limit)

    async def SendMail(  # noqa: N802  the contract's name
        self,
        request: mail_pb2.SendEmailRequest,
        context: Any,  # noqa: ARG002
    ) -> mail_pb2.SendEmailResponse:
        """Send one mail on a connection of its own."""
        async with self._free:
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


async def serve_connecting(port: int, ca_file: str, limit: int) -> None:
    """Serve until killed."""
    await serve(Connecting(port, ca_file, limit))


def main() -> None:
    """Run the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca-file", required=True)
    parser.add_argument("--limit", type=int, default=5)
    given = parser.parse_args()
    uvloop.run(serve_connecting(given.port, given.ca_file, given.limit))


if __name__ == "__main__":
    main()
