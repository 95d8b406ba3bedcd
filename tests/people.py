"""People who ask for codes and type them, over several replicas, and a count of what was valid."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING

import grpc
from google.rpc.error_details_pb2 import RetryInfo

from calls import detail
from otpmail.v1 import mail_pb2, otp_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service import Service

VALID = otp_pb2.ValidateCodeResponse.RESULT_VALID
_PAUSE_SECONDS = 0.05


class People:
    """Each person has a code mailed, and types it on every replica at once; `valid` counts the answers by address."""

    def __init__(self, replicas: Sequence[Service], *, at_once: int = 8) -> None:
        """Let `at_once` of them come at once."""
        self.codes: dict[str, str] = {}
        self.valid: Counter[str] = Counter()
        self.refused = 0
        self._replicas = replicas
        self._at_once = at_once
        self._numbers = count()

    def __str__(self) -> str:
        """Return the figures for a person."""
        return (
            f"{len(self.codes)} codes, {len(self.valid)} valid, {len(self.twice)} twice, {self.refused} calls refused"
        )

    @property
    def twice(self) -> list[str]:
        """The addresses whose code was valid more than once."""
        return [name for name, times in self.valid.items() if times > 1]

    async def run(self, stop: asyncio.Event) -> None:
        """Come one after the other until `stop` is set."""

        async def come() -> None:
            while not stop.is_set():
                await self._come()

        await asyncio.gather(*(come() for _ in range(self._at_once)))

    async def wait_for_valid(self, more: int, *, timeout: float = 60) -> None:
        """Return once so many more codes were valid."""
        wanted = len(self.valid) + more
        async with asyncio.timeout(timeout):
            while len(self.valid) < wanted:  # noqa: ASYNC110  each answer counts
                await asyncio.sleep(0.01)

    async def type_all_again(self) -> None:
        """Type every code once more, on each replica."""
        for name, code in self.codes.items():
            await asyncio.gather(*(self._type(replica, name, code) for replica in self._replicas))

    async def _come(self) -> None:
        number = next(self._numbers)
        name = f"c{number}@example.org"
        request = otp_pb2.SendCodeRequest(email=name, wait_for=mail_pb2.WAIT_FOR_QUEUE)
        try:
            code = (await self._replicas[number % len(self._replicas)].otp.SendCode(request)).otp_code
        except grpc.aio.AioRpcError as error:
            await self._refuse(error)
            return
        self.codes[name] = code
        await asyncio.gather(*(self._type(replica, name, code) for replica in self._replicas))

    async def _type(self, replica: Service, name: str, code: str) -> None:
        try:
            answer = await replica.otp.ValidateCode(otp_pb2.ValidateCodeRequest(email=name, code=code))
        except grpc.aio.AioRpcError as error:
            await self._refuse(error)
        else:
            self.valid[name] += answer.result == VALID
            self.valid += Counter()  # drops what was never valid

    async def _refuse(self, error: grpc.aio.AioRpcError) -> None:
        """Count a refusal, which must be one that a client repeats after a while."""
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        assert detail(error, RetryInfo).retry_delay.ToTimedelta().total_seconds() > 0
        self.refused += 1
        await asyncio.sleep(_PAUSE_SECONDS)
