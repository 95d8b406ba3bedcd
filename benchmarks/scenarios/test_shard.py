"""The cost of calls for a server of Redis with the store: processor time of its one thread for each kind of call."""

from pathlib import Path
from statistics import median

import pytest
from redis import Redis

from benchmarks.load.callers import NO_H2LOAD, call, has_h2load, issue, send_mails
from benchmarks.peers.redis_server import find_server
from benchmarks.peers.servers import KEYS, Certificates, RedisServer, Server, redis_server, relay, service
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

_SETTINGS: dict[str, object] = {
    "OTP_KEYS": KEYS,
    "OTP_RETURN_CODE": "true",
    "OTP_LIFESPAN_SECONDS": 3600,
    "OTP_SENDS_PER_HOUR": 100,
    "OTP_SENDS_PER_DAY": 100,
    "OTP_RESEND_SECONDS": 0,  # each round has codes mailed to the same addresses
}
_CODES_A_SECOND = 8000  # more than are validated
_NEXT = 1 << 24  # between the first numbers of two rounds
_SEND_CODE, _VALIDATE_CODE, _SEND_MAIL = "SendCode", "ValidateCode", "SendMail, WAIT_FOR_QUEUE"

Figures = dict[str, float]


def _used(shard: RedisServer) -> int:
    """The memory that its data takes, with what Redis needs around it."""
    with Redis(port=shard.port) as client:
        return int(client.info("memory")["used_memory"])


class _Rounds:
    """Measures each kind of call on one service with one store, round by round: a noisy minute meets all alike."""

    def __init__(self, server: Server, shard: RedisServer, directory: Path, *, warm: float, seconds: float) -> None:
        self._server, self._shard = server, shard
        self._warm, self._seconds = warm, seconds
        self._codes = directory / "codes.json", round((warm + seconds) * _CODES_A_SECOND)
        self._measured: dict[str, list[Figures]] = {}
        self._octets: list[float] = []

    def __repr__(self) -> str:
        return f"<_Rounds of {list(self._measured)}>"

    async def run(self, place: int) -> None:
        """Measure each kind once; `place` is the round's number."""
        await self._issue()
        await self._measure(_SEND_CODE, first=(place + 1) * _NEXT)
        await self._measure(_VALIDATE_CODE)
        if has_h2load():
            await self._measure(_SEND_MAIL)

    async def _issue(self) -> None:
        """Have the codes mailed that the round validates, and see what they take."""
        before = _used(self._shard)
        await issue(self._server, self._codes[1], self._codes[0])
        self._octets.append((_used(self._shard) - before) / self._codes[1])

    async def _measure(self, name: str, first: int = 0) -> None:
        server, warm, seconds = self._server, self._warm, self._seconds
        before = self._shard.process.cpu
        if name == _SEND_MAIL:
            measured = await send_mails(server, warm=warm, seconds=seconds, guaranteed_octets=1_000)
        else:
            codes = self._codes if name == _VALIDATE_CODE else None
            measured = await call(server, name, warm=warm, seconds=seconds, first=first, codes=codes)
        measured["store_cpu"] = self._shard.process.cpu - before
        self._measured.setdefault(name, []).append(measured)

    @property
    def octets(self) -> float:
        """The memory of a live code in the store, where all of a round's addresses were new."""
        return self._octets[0]

    def rows(self) -> list[dict[str, object]]:
        """Return a row for each kind of call, with the median of its rounds."""
        return [self._row(name, rounds) for name, rounds in self._measured.items()]

    @staticmethod
    def _row(name: str, rounds: list[Figures]) -> dict[str, object]:
        spent = median(each["store_cpu"] / each["calls"] for each in rounds)
        return {
            "call": name,
            "calls/s": median(each["rate"] for each in rounds),
            "p50_ms": median(each["p50_ms"] for each in rounds),
            "server us/call": median(each["server_cpu"] / each["calls"] for each in rounds) * 1e6,
            "redis us/call": spent * 1e6,
            "calls/s of a whole shard": 1 / spent,
        }


async def test_a_shard(certificates: Certificates, results: Results, tmp_path: Path, *, quick: bool) -> None:
    """A server of Redis spends so little on each call that one carries several replicas."""
    if find_server() is None:
        pytest.skip("redis-server is not installed")
    warm, seconds, count = (0.3, 0.7, 1) if quick else (1.0, 4.0, 3)
    async with redis_server() as shard, relay(certificates) as at, service(at, STORE_URL=shard.url, **_SETTINGS) as own:
        rounds = _Rounds(own, shard, tmp_path, warm=warm, seconds=seconds)
        for place in range(count):
            await rounds.run(place)
    rows = rounds.rows()
    results.report(
        rows,
        Promise(
            what="microseconds of Redis for a call, the dearest",
            figure=max(float(str(row["redis us/call"])) for row in rows),
            at_most=100,
            timed=True,
        ),
        Promise(what="octets of Redis for a live code", figure=rounds.octets, at_most=1000),
        note="" if has_h2load() else NO_H2LOAD,
    )
