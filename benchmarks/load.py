"""Callers of `mail.MailService/SendMail`, each with one call in flight: the load of a benchmark, the same for all.

Prints what they saw within the measured time, and how many calls went well in all, warming up included.
"""

from __future__ import annotations  # generated stubs name types that exist for the type checker alone

import argparse
import asyncio
import json
import time
from itertools import count
from statistics import quantiles

import grpc.aio
import uvloop

from benchmarks.letters import SUBJECT, recipient, text
from otpmail.original import mail_pb2, mail_pb2_grpc


def request(number: int) -> mail_pb2.SendEmailRequest:
    """The request for the mail with this number."""
    return mail_pb2.SendEmailRequest(to=recipient(number), subject=SUBJECT, body=text(number))


async def load(address: str, callers: int, warm: float, seconds: float) -> dict[str, float]:
    """Warm up, measure for that long, and let the calls that are in flight end."""
    cpu = time.process_time()
    numbers = count()
    calls: list[tuple[float, float]] = []  # when each ended, and how long it took
    starts = time.monotonic() + warm
    ends = starts + seconds

    async def call(mails: mail_pb2_grpc.MailServiceAsyncStub) -> None:
        while (began := time.monotonic()) < ends:
            await mails.SendMail(request(next(numbers)))
            ended = time.monotonic()
            calls.append((ended, ended - began))

    async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as tasks:
        mails: mail_pb2_grpc.MailServiceAsyncStub = mail_pb2_grpc.MailServiceStub(channel)
        for _ in range(callers):
            tasks.create_task(call(mails))
    counted = [took * 1000 for ended, took in calls if starts <= ended < ends]
    percentiles = quantiles(counted, n=100)
    return {
        "calls": len(calls),
        "rate": len(counted) / seconds,
        "p50_ms": percentiles[49],
        "p99_ms": percentiles[98],
        "cpu": time.process_time() - cpu,
    }


def main() -> None:
    """Call as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--warm", type=float, default=1, help="seconds")
    parser.add_argument("--seconds", type=float, default=5)
    given = parser.parse_args()
    print(json.dumps(uvloop.run(load(given.address, given.callers, given.warm, given.seconds))), flush=True)


if __name__ == "__main__":
    main()
