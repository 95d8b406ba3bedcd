"""The time from the start of the service to its first answer, and its memory at rest."""

from __future__ import annotations  # generated stubs name types that exist for the type checker alone

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import grpc.aio

from benchmarks.load.calls import ANY_CODE, holder, request
from benchmarks.peers.servers import (
    AS_SHIPPED,
    KEYS,
    Certificates,
    RedisServer,
    Relay,
    redis_server,
    relay,
    starting_service,
)
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results
from otpmail.original import mail_pb2_grpc
from otpmail.v1 import otp_pb2, otp_pb2_grpc

_REST_SECONDS = 1.0


async def _start(at: Relay, store: Mapping[str, object]) -> dict[str, float]:
    """Start a service with a store, call it as soon as it logs where it listens, and stop it."""
    began = time.monotonic()
    async with starting_service(at, **store) as process:
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


def _stores(directory: Path, redis: RedisServer, number: int) -> dict[str, dict[str, object]]:
    """Return the settings of each store, which is empty at each start: in memory, as shipped, first."""
    return {
        AS_SHIPPED: {},
        "SQLite": {"STORE_URL": f"sqlite:{directory / f'{number}.db'}", "OTP_KEYS": KEYS},
        "Redis": {"STORE_URL": redis.url, "STORE_NAMESPACE": f"start{number}", "OTP_KEYS": KEYS},
    }


async def test_start_and_rest(certificates: Certificates, results: Results, tmp_path: Path, *, quick: bool) -> None:
    """The service answers and relays within 1.5 s, 0.2 s later with a durable store, and takes 90 MiB at rest."""
    starts: dict[str, list[dict[str, float]]] = {}
    count = 1 if quick else 7
    async with relay(certificates) as at, redis_server() as redis:
        for number in range(count):  # by turns, so that a noisy minute disturbs all alike
            for name, store in _stores(tmp_path, redis, number).items():
                starts.setdefault(name, []).append(await _start(at, store))
    middles = {name: {key: median(start[key] for start in some) for key in some[0]} for name, some in starts.items()}
    shipped = middles[AS_SHIPPED]
    results.report(
        [{"start": f"the median of {count}", "settings": name, **middle} for name, middle in middles.items()],
        Promise(what="seconds to the first call", figure=shipped["first call s"], at_most=1.5, timed=True),
        Promise(what="seconds to the first mail", figure=shipped["first mail s"], at_most=1.5, timed=True),
        Promise(what="MiB at rest", figure=shipped["MiB at rest"], at_most=90, margin=1.3),
        *(
            Promise(
                what=f"seconds to the first call beyond memory's, {name}",
                figure=middles[name]["first call s"] - shipped["first call s"],
                at_most=0.2,
                timed=True,
            )
            for name in ("SQLite", "Redis")
        ),
    )
