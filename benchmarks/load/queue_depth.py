"""How long it takes to accept a mail, by how many wait already: one caller, with WAIT_FOR_QUEUE.

Ends with the first mail that the service refuses because the queue has no place left for it.
"""

from __future__ import annotations  # generated stubs name types that exist for the type checker alone

import argparse
import json
import time
from statistics import quantiles

import grpc.aio
import uvloop

from benchmarks.load.sample_mail import SUBJECT, recipient, text
from otpmail.v1 import mail_pb2, mail_pb2_grpc


async def fill(address: str, most: int) -> tuple[list[float], float]:
    """Return how long each accepted mail took, in milliseconds, and how long the refusal took."""
    took: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        mails: mail_pb2_grpc.MailServiceAsyncStub = mail_pb2_grpc.MailServiceStub(channel)
        for number in range(most + 1):
            request = mail_pb2.SendMailRequest(
                to=[recipient(number)], subject=SUBJECT, text=text(number), wait_for=mail_pb2.WAIT_FOR_QUEUE
            )
            began = time.perf_counter()
            try:
                await mails.SendMail(request)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                return took, (time.perf_counter() - began) * 1000
            took.append((time.perf_counter() - began) * 1000)
    raise RuntimeError(f"the service accepted {most + 1} mails")


async def measure(address: str, size: int, parts: int) -> dict[str, object]:
    """Fill the queue, and return the percentiles and the shortest time of each of so many equal parts of it."""
    cpu, began = time.process_time(), time.monotonic()
    took, refused_ms = await fill(address, size)
    cores = (time.process_time() - cpu) / (time.monotonic() - began)
    rows, shortest = [], []
    for part in range(parts):
        first, behind = len(took) * part // parts, len(took) * (part + 1) // parts
        percentiles = quantiles(took[first:behind], n=100)
        rows.append({"waiting": behind, "p50_ms": percentiles[49], "p99_ms": percentiles[98]})
        shortest.append(min(took[first:behind]))
    return {"accepted": len(took), "refused_ms": refused_ms, "cores": cores, "rows": rows, "shortest_ms": shortest}


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--size", type=int, required=True, help="the service's QUEUE_SIZE")
    parser.add_argument("--parts", type=int, default=10)
    given = parser.parse_args()
    print(json.dumps(uvloop.run(measure(given.address, given.size, given.parts))), flush=True)


if __name__ == "__main__":
    main()
