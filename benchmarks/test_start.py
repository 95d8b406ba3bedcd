"""How soon a service that has just been started serves, and what memory it takes at rest."""

from __future__ import annotations  # generated stubs name types that exist for the type checker alone

import asyncio
import time
from statistics import median

import grpc.aio

from benchmarks.calls import ANY_CODE, holder, request
from benchmarks.processes import CONNECTIONS, Certificates, Process, Relay, relay
from benchmarks.results import Promise, Results
from otpmail.original import mail_pb2_grpc
from otpmail.v1 import otp_pb2, otp_pb2_grpc

_REST_SECONDS = 1.0


async def _start(at: Relay) -> dict[str, float]:
    """Start one, call it as soon as it says where it listens, and end it."""
    environment = {"HOST": "127.0.0.1", "PORT": 0, "LOG_FORMAT": "json", "WORKERS": CONNECTIONS} | at.settings
    began = time.monotonic()
    async with Process("otpmail", "serve", **environment) as process:
        address = (await process.said(event="listening"))["address"]
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
    """The first call is answered 1.5 s after the start, the first mail is with the relay, and memory stays small."""
    async with relay(certificates) as at:
        starts = [await _start(at) for _ in range(1 if quick else 7)]
    middle = {name: median(start[name] for start in starts) for name in starts[0]}
    results.report(
        [{"start": f"the middle one of {len(starts)}", **middle}],
        Promise(what="seconds to the first call", figure=middle["first call s"], at_most=1.5, timed=True),
        Promise(what="seconds to the first mail", figure=middle["first mail s"], at_most=1.5, timed=True),
        Promise(what="MiB at rest", figure=middle["MiB at rest"], at_most=90, margin=1.3),
    )
