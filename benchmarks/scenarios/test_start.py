"""The time from the start of the service to its first answer, and its memory at rest."""

from __future__ import annotations  # generated stubs name types that exist for the type checker alone

import asyncio
import time
from statistics import median

import grpc.aio

from benchmarks.load.calls import ANY_CODE, holder, request
from benchmarks.peers.servers import AS_SHIPPED, Certificates, Relay, relay, starting_service
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results
from otpmail.original import mail_pb2_grpc
from otpmail.v1 import otp_pb2, otp_pb2_grpc

_REST_SECONDS = 1.0


async def _start(at: Relay) -> dict[str, float]:
    """Start a service, call it as soon as it logs where it listens, and stop it."""
    began = time.monotonic()
    async with starting_service(at) as process:
        address = (await process.line(event="listening"))["address"]
        listening = time.monotonic()
        async with grpc.aio.insecure_channel(address) as channel:
            codes: otp_pb2_grpc.OtpServiceAsyncStub = otp_pb2_grpc.OtpServiceStub(channel)
            await codes.ValidateCode(otp_pb2.ValidateCodeRequest(email=holder(0), code=ANY_CODE))
            served = time.monotonic()
            mails: mail_pb2_grpc.MailServiceAsyncStub = mail_pb2_grpc.MailServiceStub(channel)
            await mails.SendMail(request(0))
            relayed = time.monotonic()
        await asyncio.sleep(_REST_SECONDS)
        memory = process.resident
        cpu = process.cpu
    return {
        "listening s": listening - began,
        "first call s": served - began,
        "first mail s": relayed - began,
        "cpu s": cpu,
        "MiB at rest": memory / (1 << 20),
    }


async def test_start_and_rest(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """The service answers its first call and relays its first mail within 1.5 s, and takes 90 MiB at rest."""
    async with relay(certificates) as at:
        starts = [await _start(at) for _ in range(1 if quick else 7)]
    middle = {name: median(start[name] for start in starts) for name in starts[0]}
    results.report(
        [{"start": f"the median of {len(starts)}", "settings": AS_SHIPPED, **middle}],
        Promise(what="seconds to the first call", figure=middle["first call s"], at_most=1.5, timed=True),
        Promise(what="seconds to the first mail", figure=middle["first mail s"], at_most=1.5, timed=True),
        Promise(what="MiB at rest", figure=middle["MiB at rest"], at_most=90, margin=1.3),
    )
