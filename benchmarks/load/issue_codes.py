"""Has codes mailed, and writes them into a file, for the callers of ValidateCode."""

from __future__ import annotations  # generated stubs name types that exist for the type checker alone

import argparse
import asyncio
import json
from pathlib import Path

import grpc.aio
import uvloop

from benchmarks.load.calls import metadata_of, send_code
from otpmail.v1 import otp_pb2_grpc

_CALLERS = 64


async def issue(address: str, first: int, count: int, token: str) -> list[str]:
    """Issue the codes with the numbers from the `first` on, and return them, each in the place of its number."""
    issued = [""] * (first + count)
    left = iter(range(first, first + count))
    metadata = metadata_of(token)
    async with grpc.aio.insecure_channel(address) as channel:
        codes: otp_pb2_grpc.OtpServiceAsyncStub = otp_pb2_grpc.OtpServiceStub(channel)

        async def caller() -> None:
            for number in left:
                issued[number] = await send_code(codes, number, metadata)

        await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    return issued


def main() -> None:
    """Issue codes, and print how many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--first", type=int, default=0, help="number of the first code")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--token", default="", help="of a caller")
    given = parser.parse_args()
    issued = uvloop.run(issue(given.address, given.first, given.count, given.token))
    given.file.write_text(json.dumps(issued), encoding="utf-8")
    print(json.dumps({"issued": given.count}), flush=True)


if __name__ == "__main__":
    main()
