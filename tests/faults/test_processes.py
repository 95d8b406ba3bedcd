"""Several processes of one service on a Redis server: kills of one of them, and of the supervisor with all."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from typing import TYPE_CHECKING

import pytest

from guaranteed import Callers, Copies, message_ids, names, redis_settings
from redis_server import RedisServer
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from relay import Certificates, Relay

WORKERS = 6
BATCH = 100
"""Mails that may settle in a hundredth of a second, after which a settlement is on the server."""
KILLS_OF_ONE = 2
"""Kills of one process before the one of the supervisor."""


async def _kill_the_busy_one(service: Service, number: int) -> None:
    """Kill the process that has the callers' connection, and wait until another one has taken its place."""
    os.kill((await _busy_one(service))[1], signal.SIGKILL)
    await service.wait_for_log("listening", count=number + 3, timeout=60)


async def _busy_one(service: Service) -> tuple[object, int]:
    """Return the process that settles the next mail, and its id: the last one of the log may have ended."""
    line = await service.wait_for_log("mail-settled", count=len(service.logged("mail-settled")) + 1)
    return line["process"], int(str(service.logged("process-started", process=line["process"])[-1]["pid"]))


@pytest.mark.relay(delay=0.005)
async def test_kills_of_processes_and_of_their_supervisor(
    relay: Relay, certificates: Certificates, tmp_path: Path, show: Callable[[str], None], *, full: bool
) -> None:
    """A kill -9 of one process, or of the supervisor with all processes, loses no promised mail under 64 callers."""
    callers, rounds, window = Callers(), 7 if full else 1, 0
    with RedisServer() as server:
        state = relay_settings(relay, certificates, tmp_path / "token") | redis_settings(server)
        state |= {"PROCESSES": 2, "WORKERS": WORKERS, "LOG_MAILS": "all"}
        for _ in range(rounds):
            stop = asyncio.Event()
            async with Service(**state) as service:
                await service.wait_for_log("listening", count=2, timeout=60)
                window = max(window, int(str((await service.wait_for_log("relay-up", timeout=60))["window"])))
                load = asyncio.create_task(callers.run(service, stop=stop))
                for number in range(KILLS_OF_ONE):
                    await callers.wait_for_promises(len(callers.promised) + random.randint(200, 400))
                    await _kill_the_busy_one(service, number)
                await callers.wait_for_promises(len(callers.promised) + random.randint(200, 400))
                await service.kill()
                stop.set()
                await load
        async with Service(**state) as service:
            async with asyncio.timeout(60):
                while not set(callers.promised) <= set(names(relay.mails)):  # noqa: ASYNC110  each mail counts
                    await asyncio.sleep(0.05)
            assert await service.stop() == 0
    kills = rounds * (KILLS_OF_ONE + 1)
    copies, bound = Copies(callers.promised, relay.mails), kills * (WORKERS * window + BATCH)
    show(f"{kills} kills, {rounds} of the supervisor, {copies}, at most {bound} copies are allowed")
    assert not copies.lost
    assert copies.extra <= bound
    assert all(len(ids) == 1 for ids in message_ids(relay.mails).values())


@pytest.mark.relay(delay=0.005)
async def test_a_suspended_process_is_replaced(
    relay: Relay, certificates: Certificates, tmp_path: Path, show: Callable[[str], None]
) -> None:
    """A process that stands still is replaced, and another takes its mails over: none is lost, and few go twice."""
    callers, stop = Callers(at_once=16), asyncio.Event()
    with RedisServer() as server:
        state = relay_settings(relay, certificates, tmp_path / "token") | redis_settings(server)
        state |= {"PROCESSES": 2, "WORKERS": WORKERS, "LOG_MAILS": "all", "DRAIN_SECONDS": 0}
        async with Service(**state, PROCESS_HANG_SECONDS=3) as service:
            await service.wait_for_log("listening", count=2, timeout=60)
            window = int(str((await service.wait_for_log("relay-up", timeout=60))["window"]))
            load = asyncio.create_task(callers.run(service, stop=stop))
            await callers.wait_for_promises(200)
            busy, pid = await _busy_one(service)
            stop.set()
            os.kill(pid, signal.SIGSTOP)
            await service.wait_for_log("process-stopped", timeout=60, pid=pid)
            await service.wait_for_log("process-killed", timeout=60, pid=pid)
            await service.wait_for_log("listening", count=3, timeout=60)
            await load  # calls to the suspended process have ended with it
            async with asyncio.timeout(60):
                while not set(callers.promised) <= set(names(relay.mails)):  # noqa: ASYNC110  each mail counts
                    await asyncio.sleep(0.05)
            assert await service.stop() == 0
    copies, bound = Copies(callers.promised, relay.mails), WORKERS * window + BATCH
    show(f"process {busy} suspended and replaced, {copies}, at most {bound} copies are allowed")
    assert not copies.lost
    assert copies.extra <= bound
    assert all(len(ids) == 1 for ids in message_ids(relay.mails).values())
