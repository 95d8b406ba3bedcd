"""Calls that start by the clock, whether or not earlier ones have been answered (an open loop).

Their arrivals are Poisson, from a seed. The time of a call counts from when it was due, not from when this program
started it. So a stall of the service counts for every call that it would have met (no coordinated omission).
"""

import argparse
import asyncio
import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import uvloop

from benchmarks.load.calls import METHODS, Call, make_call

WARM_SECONDS = 0.5
_MOST_IN_FLIGHT = 20_000


def schedule(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """When calls are due, in seconds from the beginning, warming up included."""
    arrivals = random.Random(seed)  # noqa: S311  for arrivals, not for secrets
    due = arrivals.expovariate(rate)
    while due < WARM_SECONDS + seconds:
        yield due
        due += arrivals.expovariate(rate)


Times = tuple[float, float, float]
"""When a call was due, started and ended."""


def figures(done: list[Times], *, began: float, cpu: float) -> dict[str, object]:
    """Return the figures of a run that has just ended: how long each call took, in microseconds, and the others.

    `began` and `cpu` are the clock and the processor time of this process at its start.
    """
    ended = time.monotonic()
    measured = [one for one in done if one[0] >= began + WARM_SECONDS]
    late = sorted(started - due for due, started, _ in measured)
    return {
        "calls": len(done),
        "took_us": [round((done - due) * 1e6) for due, _, done in measured],
        "rate": len(measured) / (max(done for *_, done in measured) - began - WARM_SECONDS),
        "late_ms": late[int(len(late) * 0.99)] * 1000,
        "cores": (time.process_time() - cpu) / (ended - began),
    }


class Offer:
    """The calls of one run: those in flight, and the times of the others."""

    def __init__(self, call: Call, first: int) -> None:
        self._call = call
        self._number = first
        self._flying: set[asyncio.Task[None]] = set()
        self.done: list[Times] = []
        self.failed: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Offer {len(self._flying)} in flight, {len(self.done)} done>"

    def start(self, due: float) -> None:
        """Start the call that was due at `due`. Its error is kept in `failed`."""
        if len(self._flying) >= _MOST_IN_FLIGHT:
            self.failed = RuntimeError(f"more than {_MOST_IN_FLIGHT} calls wait for their answers")
            return
        task = asyncio.create_task(self._run(self._number, due))
        self._number += 1
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)

    async def ended(self) -> None:
        """Wait for the calls in flight. Raises the error of one that failed."""
        while self._flying:
            await asyncio.wait(self._flying)
        if self.failed is not None:
            raise self.failed

    async def _run(self, number: int, due: float) -> None:
        began = time.monotonic()
        try:
            await self._call(number)
        except grpc.aio.AioRpcError as error:
            self.failed = error
        self.done.append((due, began, time.monotonic()))


async def offer(call: Call, rate: float, seconds: float, first: int, seed: int) -> dict[str, object]:
    """Start the calls when they are due, wait for all of them, and return how long each took, in microseconds."""
    loop = asyncio.get_running_loop()
    calls = Offer(call, first)
    cpu, began = time.process_time(), time.monotonic()

    def keep_time() -> None:
        """Start each call when it is due, from a thread, since the loop's timers count in milliseconds."""
        for after in schedule(rate, seconds, seed):
            due = began + after
            time.sleep(max(0.0, due - time.monotonic()))
            loop.call_soon_threadsafe(calls.start, due)

    clock = threading.Thread(target=keep_time)
    clock.start()
    await asyncio.to_thread(clock.join)
    await calls.ended()
    return figures(calls.done, began=began, cpu=cpu)


async def run(given: argparse.Namespace) -> dict[str, object]:
    """Connect, and call."""
    async with grpc.aio.insecure_channel(given.address) as channel:
        await channel.channel_ready()
        call = make_call(given.method, channel, given.codes)
        return await offer(call, given.rate, given.seconds, given.first, given.seed)


def main() -> None:
    """Call, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--method", choices=METHODS, default="SendMail")
    parser.add_argument("--rate", type=float, required=True, help="calls a second")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--first", type=int, default=0, help="the number of the first call")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--codes", type=Path, help="JSON file with the codes to validate")
    print(json.dumps(uvloop.run(run(parser.parse_args()))), flush=True)


if __name__ == "__main__":
    main()
