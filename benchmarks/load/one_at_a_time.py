"""One caller of `mail.MailService/SendMail`, which pings the relay between two mails.

So the time of a mail can be given in round trips of the same moment, measured on an equally busy machine.
"""

from __future__ import annotations  # generated stubs name types that exist for the type checker alone

import argparse
import json
import time
from collections.abc import Awaitable
from statistics import median, quantiles

import grpc.aio
import uvloop

from benchmarks.load.calls import request
from benchmarks.smtp_client import command, sign_in, sign_out
from otpmail.original import mail_pb2_grpc

_WARM_UP = 10  # mails: one or two for each connection of a pool


async def seconds(work: Awaitable[object]) -> float:
    """How long `work` takes."""
    began = time.monotonic()
    await work
    return time.monotonic() - began


async def measure(address: str, port: int, ca_file: str, mails: int) -> dict[str, float]:
    """Send so many mails one at a time, and return how long they and the pings took, in milliseconds.

    Beside the medians stand the shortest, which a busy machine lengthens least.
    """
    pings, calls = [], []
    relay = await sign_in(port, ca_file)
    async with grpc.aio.insecure_channel(address) as channel:
        service: mail_pb2_grpc.MailServiceAsyncStub = mail_pb2_grpc.MailServiceStub(channel)
        for number in range(_WARM_UP):
            await service.SendMail(request(number))
        for number in range(_WARM_UP, _WARM_UP + mails):
            pings.append(await seconds(command(relay, b"NOOP")))
            calls.append(await seconds(_send(service, number)))
    await sign_out(relay)
    return {
        "calls": _WARM_UP + mails,
        "ping_ms": median(pings) * 1000,
        "shortest_ping_ms": min(pings) * 1000,
        "shortest_ms": min(calls) * 1000,
        "p50_ms": median(calls) * 1000,
        "p99_ms": quantiles(calls, n=100)[98] * 1000,
    }


async def _send(service: mail_pb2_grpc.MailServiceAsyncStub, number: int) -> None:
    await service.SendMail(request(number))


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca-file", required=True)
    parser.add_argument("--mails", type=int, default=200)
    given = parser.parse_args()
    print(json.dumps(uvloop.run(measure(given.address, given.port, given.ca_file, given.mails))), flush=True)


if __name__ == "__main__":
    main()
