"""Callers of `mail.MailService/SendMail` that all call at once, and again when they are answered.

The original project's table was measured so. Each caller calls at least twice and does not count its first call, since
all first calls arrive together.
"""

import argparse
import asyncio
import json
import time
from itertools import count
from statistics import mean

import grpc.aio
import uvloop

from benchmarks.load.calls import Call, make_call

_LEAST_CALLS = 2  # of each caller


async def measure(call: Call, callers: int, seconds: float) -> dict[str, float]:
    """Call for that long, and return the mean time of a call in milliseconds."""
    numbers = count()
    took: list[float] = []
    cpu, began_all = time.process_time(), time.monotonic()
    ends = began_all + seconds

    async def keep_calling() -> None:
        made = 0
        while made < _LEAST_CALLS or time.monotonic() < ends:
            began = time.monotonic()
            await call(next(numbers))
            if made:
                took.append(time.monotonic() - began)
            made += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(keep_calling())
    cores = (time.process_time() - cpu) / (time.monotonic() - began_all)
    return {"calls": len(took) + callers, "mean_ms": mean(took) * 1000, "cores": cores}


async def run(address: str, callers: int, seconds: float) -> dict[str, float]:
    """Connect, and call."""
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        return await measure(make_call("SendMail", channel), callers, seconds)


def main() -> None:
    """Call, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--callers", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=2)
    given = parser.parse_args()
    print(json.dumps(uvloop.run(run(given.address, given.callers, given.seconds))), flush=True)


if __name__ == "__main__":
    main()
