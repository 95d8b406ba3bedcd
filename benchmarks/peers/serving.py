"""Serves the peers' services on bare grpc.aio, without any code of otpmail's own."""

from __future__ import annotations  # generated stubs name types that exist for the type checker alone

import json

import grpc.aio

from otpmail.original import mail_pb2_grpc
from otpmail.v1 import mail_pb2_grpc as v1_mail_pb2_grpc
from otpmail.v1 import otp_pb2_grpc


async def serve(
    mails: mail_pb2_grpc.MailServiceServicer,
    codes: otp_pb2_grpc.OtpServiceServicer | None = None,
    streams: v1_mail_pb2_grpc.MailServiceServicer | None = None,
) -> None:
    """Listen on a free port of the loopback, print the address as a line of JSON, and serve until killed."""
    server = grpc.aio.server()
    mail_pb2_grpc.add_MailServiceServicer_to_server(mails, server)
    if codes is not None:
        otp_pb2_grpc.add_OtpServiceServicer_to_server(codes, server)
    if streams is not None:
        v1_mail_pb2_grpc.add_MailServiceServicer_to_server(streams, server)
    own = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"address": f"127.0.0.1:{own}"}), flush=True)
    await server.wait_for_termination()
