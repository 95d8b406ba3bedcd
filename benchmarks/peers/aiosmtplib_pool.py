"""A gRPC server that sends each mail with aiosmtplib's `send_message`, on a pool of warm connections.

A careful team writes this without otpmail: connections stay open and signed in, one mail at a time on each. It uses the
standard library's EmailMessage and the same loop, and has neither queue nor limits nor retries.
"""

import argparse
import asyncio
import ssl
from email import policy
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any

import aiosmtplib
import uvloop

from benchmarks.peers.serving import serve
from benchmarks.smtp_client import PASSWORD, USER
from otpmail.original import mail_pb2, mail_pb2_grpc

SENDER = "codes@example.org"


def message(to: str, subject: str, body: str) -> EmailMessage:
    """Build a text mail with the headers that every mail needs."""
    mail = EmailMessage(policy=policy.SMTP)
    mail["From"] = SENDER
    mail["To"] = to
    mail["Subject"] = subject
    mail["Date"] = formatdate()
    mail["Message-ID"] = make_msgid(domain="example.org")
    mail.set_content(body)
    return mail


async def connect(port: int, ca_file: str) -> aiosmtplib.SMTP:
    """Open a connection to the relay, and sign in."""
    client = aiosmtplib.SMTP(
        hostname="127.0.0.1",
        port=port,
        use_tls=True,
        tls_context=ssl.create_default_context(cafile=ca_file),
        username=USER,
        password=PASSWORD,
    )
    await client.connect()
    return client


class Pool(mail_pb2_grpc.MailServiceServicer):
    """mail.MailService with as many mails at once as there are connections."""

    def __init__(self, clients: list[aiosmtplib.SMTP]) -> None:
        self._idle: asyncio.Queue[aiosmtplib.SMTP] = asyncio.Queue()
        for client in clients:
            self._idle.put_nowait(client)

    async def SendMail(  # noqa: N802  the contract's name
        self,
        request: mail_pb2.SendEmailRequest,
        context: Any,  # noqa: ARG002
    ) -> mail_pb2.SendEmailResponse:
        """Send one mail on the connection that has been idle longest."""
        mail = message(request.to, request.subject, request.body)
        client = await self._idle.get()
        try:
            await client.send_message(mail)
        finally:
            self._idle.put_nowait(client)
        return mail_pb2.SendEmailResponse(status=mail_pb2.SUCCESS)


async def serve_pool(port: int, ca_file: str, connections: int) -> None:
    """Open the connections, and serve until killed."""
    await serve(Pool(await asyncio.gather(*(connect(port, ca_file) for _ in range(connections)))))


def main() -> None:
    """Run the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca-file", required=True)
    parser.add_argument("--connections", type=int, default=5)
    given = parser.parse_args()
    uvloop.run(serve_pool(given.port, given.ca_file, given.connections))


if __name__ == "__main__":
    main()
