"""Callers of one method, each with one call in flight.

Prints the figures of the measured time, and how many calls succeeded, warming up included.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from statistics import quantiles

import grpc.aio
import uvloop

from benchmarks.load.calls import METHODS, Call, make_call


async def keep_calling(
    call: Call, numbers: Iterable[int], callers: int, warm: float, seconds: float
) -> dict[str, float]:
    """Warm up, measure for that long or until the numbers run out, and wait for the calls in flight."""
    cpu, began_all = time.process_time(), time.monotonic()
    left = iter(numbers)
    calls: list[tuple[float, float]] = []  # when each ended, and how long it took
    starts = began_all + warm
    ends = starts + seconds

    async def caller() -> None:
        nonlocal ends
        while (began := time.monotonic()) < ends:
            number = next(left, None)
            if number is None:
                ends = began
                return
            await call(number)
            ended = time.monotonic()
            calls.append((ended, ended - began))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(caller())
    counted = [took * 1000 for ended, took in calls if starts <= ended < ends]
    percentiles = quantiles(counted, n=100)
    cpu = time.process_time() - cpu
    return {
        "calls": len(calls),
        "rate": len(counted) / (ends - starts),
        "p50_ms": percentiles[49],
        "p99_ms": percentiles[98],
        "cpu": cpu,
        "cores": cpu / (time.monotonic() - began_all),
    }


async def run(given: argparse.Namespace) -> dict[str, float]:
    """Connect, and call."""
    numbers = range(given.first, given.first + given.calls) if given.calls else count(given.first)
    async with grpc.aio.insecure_channel(given.address) as channel:
        call = make_call(given.method, channel, given.codes, given.token)
        return await keep_calling(call, numbers, given.callers, given.warm, given.seconds)


def main() -> None:
    """Call, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--method", choices=METHODS, default="SendMail")
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--warm", type=float, default=1, help="seconds")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--first", type=int, default=0, help="the number of the first call")
    parser.add_argument("--calls", type=int, default=0, help="the most to make; 0 is no limit")
    parser.add_argument("--codes", type=Path, help="JSON file with the codes to validate")
    parser.add_argument("--token", default="", help="of a caller")
    print(json.dumps(uvloop.run(run(parser.parse_args()))), flush=True)


if __name__ == "__main__":
    main()
