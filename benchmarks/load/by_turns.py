"""Calls several services by turns, and measures the processor time that a call takes each of them.

A turn has as many rounds as there are services. In a round each service gets the same number of calls, which take a
fraction of a second. Other work of the machine therefore meets neighbours alike. A service costs more where it was idle
before, and less where it was called just now. Each round therefore begins with the next service, and the figure of a
turn is that of its rounds together. Services that are alike have the same figure (tests/test_by_turns.py).

SendMail is called by h2load where it is installed. A round of codes has some mailed, and then validates each.
"""

from __future__ import annotations  # generated stubs name types that exist for the type checker alone

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Protocol, Self

import grpc.aio
import uvloop

from benchmarks.load import h2load
from benchmarks.load.calls import Call, make_call, metadata_of, send_code, validate_code
from benchmarks.processes import cpu_of
from otpmail.v1 import otp_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_CALLERS = 32
_REST_SECONDS = 0.02  # behind a round: what an answer does not wait for belongs to its call too

Figures = dict[str, list[dict[str, float]]]
"""The cost of a call, each time and by method: microseconds of CPU, and of time."""


class Called(Protocol):
    """A service, and its figures in each round. Each method takes a round of so many calls."""

    rounds: Figures

    async def send_mails(self, calls: int) -> None:
        """Send mails."""

    async def send_codes(self, calls: int) -> None:
        """Have codes mailed."""

    async def validate_codes(self, calls: int) -> None:
        """Validate the codes that were mailed last."""


class Service:
    """A service that is called over a channel, and its figures in each round."""

    def __init__(self, address: str, pid: int, token: str, channel: grpc.aio.Channel, directory: Path) -> None:
        self.rounds: Figures = {}
        self._address = address
        self._pid = pid
        self._token = token
        self._directory = directory
        self._numbers = count()
        self._metadata = metadata_of(token)
        self._mail = make_call("SendMail", channel, token=token)
        self._codes: otp_pb2_grpc.OtpServiceAsyncStub = otp_pb2_grpc.OtpServiceStub(channel)
        self._sent: dict[int, str] = {}

    def __repr__(self) -> str:
        return f"<Service {self._address}>"

    @classmethod
    @asynccontextmanager
    async def connect(cls, address: str, pid: int, token: str) -> AsyncIterator[Self]:
        """Open a channel to it."""
        with tempfile.TemporaryDirectory(prefix="otpmail-benchmark-") as directory:
            async with grpc.aio.insecure_channel(address) as channel:
                yield cls(address, pid, token, channel, Path(directory))

    async def send_mails(self, calls: int) -> None:
        """Take a round of SendMail."""
        if shutil.which("h2load") is None:
            await self._take("SendMail", partial(_call, self._mail, self._next(calls)), calls)
            return
        call = partial(
            h2load.call,
            self._address,
            h2load.framed_request(),
            calls=calls,
            callers=_CALLERS,
            directory=self._directory,
            token=self._token,
        )
        await self._take("SendMail", partial(asyncio.to_thread, call), calls)

    async def send_codes(self, calls: int) -> None:
        """Take a round of SendCode."""
        await self._take("SendCode", partial(_call, self._send_code, self._next(calls)), calls)

    async def validate_codes(self, calls: int) -> None:
        """Take a round of ValidateCode, with the codes of the round before."""
        await self._take("ValidateCode", partial(_call, self._validate_code, list(self._sent)), calls)

    def _next(self, calls: int) -> Iterable[int]:
        return [next(self._numbers) for _ in range(calls)]

    async def _send_code(self, number: int) -> None:
        self._sent[number] = await send_code(self._codes, number, self._metadata)

    async def _validate_code(self, number: int) -> None:
        await validate_code(self._codes, number, self._sent.pop(number), self._metadata)

    async def _take(self, method: str, make_calls: Callable[[], Awaitable[object]], calls: int) -> None:
        cpu, began = cpu_of(self._pid), time.monotonic()
        await make_calls()
        took = time.monotonic() - began
        await asyncio.sleep(_REST_SECONDS)
        figures = {"cpu": (cpu_of(self._pid) - cpu) / calls * 1e6, "time": took / calls * 1e6}
        self.rounds.setdefault(method, []).append(figures)


async def _call(call: Call, numbers: Iterable[int]) -> None:
    """Make the calls with these numbers, and wait for their answers."""
    left = iter(numbers)

    async def caller() -> None:
        for number in left:
            await call(number)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(_CALLERS):
            tasks.create_task(caller())


async def take_turns(services: Sequence[Called], *, turns: int, calls: int) -> list[Figures]:
    """Take the turns, and return what a call took each service in each. A first turn warms up, and does not count."""
    count = len(services)
    for number in range((turns + 1) * count):
        first = number % count
        in_order = (*services[first:], *services[:first])
        for service in in_order:
            await service.send_mails(calls)
        for service in in_order:
            await service.send_codes(calls)
        for service in in_order:
            await service.validate_codes(calls)
    return [
        {method: _by_turn(rounds[count:], count) for method, rounds in service.rounds.items()} for service in services
    ]


def _by_turn(rounds: Sequence[dict[str, float]], count: int) -> list[dict[str, float]]:
    """Return the figures of turns of so many rounds."""
    turns = [rounds[first : first + count] for first in range(0, len(rounds), count)]
    return [{name: fmean(each[name] for each in turn) for name in turn[0]} for turn in turns]


async def run(given: argparse.Namespace) -> list[Figures]:
    """Connect to the services, and take the turns."""
    async with AsyncExitStack() as stack:
        services = [
            await stack.enter_async_context(Service.connect(address, pid, token))
            for address, pid, token in zip(given.addresses, given.pids, given.tokens, strict=True)
        ]
        return await take_turns(services, turns=given.turns, calls=given.calls)


def main() -> None:
    """Call, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--addresses", nargs="+", required=True, help="of the services")
    parser.add_argument("--pids", nargs="+", type=int, required=True, help="of their processes")
    parser.add_argument("--tokens", nargs="+", required=True, help="of a caller of each service, or empty for no token")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--calls", type=int, default=1000, help="to each service, of each method, in a round")
    print(json.dumps({"services": uvloop.run(run(parser.parse_args()))}), flush=True)


if __name__ == "__main__":
    main()
