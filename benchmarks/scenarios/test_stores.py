"""The cost of a store: each kind of call with each store, beside the same calls with the memory store."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.load.callers import NO_H2LOAD, call, has_h2load, issue, send_batches, send_mails
from benchmarks.load.calls import REPEATABLE
from benchmarks.peers.servers import KEYS, Certificates, Server, redis_server, relay, service
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

_MEMORY, _SQLITE, _REDIS = "memory:", "sqlite:", "redis:"
_BATCH = 100
_MARGIN = 3.0  # of a quick run
_CHECKS_A_SECOND = 8000  # more than are validated: when they run out a round ends early
_CODES: dict[str, object] = {  # rounds use the same addresses
    "OTP_RETURN_CODE": "true",
    "OTP_RESEND_SECONDS": 0,
    "OTP_SENDS_PER_HOUR": 100,
    "OTP_SENDS_PER_DAY": 100,
}

Figures = dict[str, float]
Measure = Callable[[Server, str, float, float], Awaitable[Figures]]
"""Puts load on a server, with a name for it that no other load has, to warm up and then for so many seconds."""


@dataclass(frozen=True, slots=True)
class Load:
    """A kind of load, and which part of the memory store's rate each of the others promises, 0 for no promise."""

    name: str
    measure: Measure
    sqlite: float = 0.0
    redis: float = 0.0

    @property
    def promises(self) -> tuple[tuple[str, str, float], ...]:
        """The stores that promise something about it, and what."""
        parts = (("SQLite", _SQLITE, self.sqlite), ("Redis", _REDIS, self.redis))
        return tuple(promise for promise in parts if promise[2])


def _guaranteed(octets: int) -> Measure:
    async def measure(server: Server, _: str, warm: float, seconds: float) -> Figures:
        return await send_mails(server, warm=warm, seconds=seconds, guaranteed_octets=octets)

    return measure


async def _waiting(server: Server, _: str, warm: float, seconds: float) -> Figures:
    return await send_mails(server, warm=warm, seconds=seconds)


async def _batches(server: Server, name: str, warm: float, seconds: float) -> Figures:
    return await send_batches(server, name=name, batch=_BATCH, warm=warm, seconds=seconds, guaranteed=True)


async def _repeatable(server: Server, name: str, warm: float, seconds: float) -> Figures:
    return await call(server, REPEATABLE, warm=warm, seconds=seconds, first=_first(name))


async def _codes(server: Server, name: str, warm: float, seconds: float) -> Figures:
    return await call(server, "SendCode", warm=warm, seconds=seconds, first=_first(name))


def _first(name: str) -> int:
    """Return the number of a round's first call, so that no other round has its addresses or request ids."""
    return int.from_bytes(name.encode()[-4:]) << 24


async def _checks(server: Server, _: str, warm: float, seconds: float) -> Figures:
    """Validate codes that are issued for this round, for half the time of other loads: issuing them takes longer."""
    warm, seconds = warm / 2, seconds / 2
    count = round((warm + seconds) * _CHECKS_A_SECOND)
    with TemporaryDirectory() as directory:
        file = Path(directory) / "codes.json"
        await issue(server, count, file)
        return await call(server, "ValidateCode", warm=warm, seconds=seconds, codes=(file, count))


_BY_H2LOAD = (
    # First: what guaranteed mails leave behind, a store forgets beside later loads.
    Load("SendMail, waits for the relay", _waiting, 0.97, 0.97),
    Load("SendMail, WAIT_FOR_QUEUE, 1 KB", _guaranteed(1_000), 0.7, 0.6),
    Load("SendMail, WAIT_FOR_QUEUE, 50 KB", _guaranteed(50_000), 0.35),
)
_OTHERS = (
    Load(f"SendMails of {_BATCH}, WAIT_FOR_QUEUE", _batches),
    Load(f"{REPEATABLE}, waits for the relay", _repeatable),
    Load("SendCode", _codes),
    Load("ValidateCode", _checks, redis=0.7),
)


@asynccontextmanager
async def _services(certificates: Certificates, directory: Path) -> AsyncIterator[Mapping[str, Server]]:
    """A service with each store, each with a relay of its own."""
    settings: dict[str, dict[str, object]] = {
        _MEMORY: {},
        _SQLITE: {"STORE_URL": f"sqlite:{directory / 'store.db'}", "OTP_KEYS": KEYS},
    }
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server())
        settings[_REDIS] = {"STORE_URL": redis.url, "OTP_KEYS": KEYS}
        servers = {}
        for store, given in settings.items():
            at = await stack.enter_async_context(relay(certificates))
            servers[store] = await stack.enter_async_context(service(at, **_CODES, **given))
        yield servers


async def test_rates_by_store(certificates: Certificates, results: Results, tmp_path: Path, *, quick: bool) -> None:
    """Each store keeps most of the rate of guaranteed mails, and costs those nothing that wait for the relay."""
    warm, seconds, rounds = (0.3, 0.7, 1) if quick else (1.0, 4.0, 3)
    loads = [*(_BY_H2LOAD if has_h2load() else ()), *_OTHERS]
    measured: dict[tuple[str, str], list[Figures]] = {}
    async with _services(certificates, tmp_path) as servers:
        for load in loads:
            for place in range(rounds):  # by turns, so that a noisy minute disturbs all alike
                for store, server in servers.items():
                    name = f"{load.name[:9]}-{store}-{place}{os.urandom(2).hex()}"
                    measured.setdefault((load.name, store), []).append(await load.measure(server, name, warm, seconds))
    rows = [_row(name, store, figures) for (name, store), figures in measured.items()]
    promises = [
        Promise(
            what=f"{name} beside memory, {load.name}",
            figure=_part(measured[load.name, store], measured[load.name, _MEMORY], quick=quick),
            at_least=part,
            margin=_MARGIN,
        )
        for load in loads
        for name, store, part in load.promises
    ]
    rate = median(figures["rate"] for figures in measured[_OTHERS[0].name, _SQLITE]) / 1000
    promises.append(Promise(what=f"thousand mails/s, SQLite, {_OTHERS[0].name}", figure=rate, at_least=8, timed=True))
    results.report(rows, *promises, note="" if has_h2load() else NO_H2LOAD)


def _part(rounds: list[Figures], of: list[Figures], *, quick: bool) -> float:
    """The median, over the rounds, of one store's rate as a part of another's; of a quick run, by processor time."""
    if quick:  # whose one round is at the mercy of other processes
        [one], [other] = rounds, of
        return (other["server_cpu"] / other["calls"]) / (one["server_cpu"] / one["calls"])
    return median(one["rate"] / other["rate"] for one, other in zip(rounds, of, strict=True))


def _row(name: str, store: str, rounds: list[Figures]) -> dict[str, object]:
    calls = sum(figures["calls"] for figures in rounds)
    middle = {name: median(figures[name] for figures in rounds) for name in ("rate", "p50_ms", "p99_ms")}
    return {
        "load": name,
        "store": store,
        "calls/s": middle["rate"],
        "p50_ms": middle["p50_ms"],
        "p99_ms": middle["p99_ms"],
        "server us/call": sum(figures["server_cpu"] for figures in rounds) / calls * 1e6,
    }
