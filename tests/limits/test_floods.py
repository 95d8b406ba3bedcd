"""Memory that nothing counts: only the client that floods loses its connection."""

import asyncio
import threading
import time
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from otpmail.limits.floods import FloodWatch
from otpmail.limits.sockets import Brought

MB = 1 << 20
BEGIN, PART = 70, 64  # MB: of the process as it starts, and for requests
ALERT = BEGIN + 64 + PART
MOST = ALERT + PART
HERE = ("127.0.0.1:40700",)


class Machine:
    """A process whose memory and connections a test sets."""

    def __init__(self) -> None:
        self.taken = BEGIN
        self.counted = 0
        self.freed = 0
        self.connections: dict[str, Brought] = {"flood": Brought(0, 0), "other": Brought(9 * MB, 0)}
        self.ended: list[str] = []
        memory: Any = SimpleNamespace(
            for_reading=PART * MB, ahead=0, arrived=None, limit=256 * MB, used=lambda: self.counted * MB
        )
        self.memory = memory
        self.watch = FloodWatch(
            memory,
            resident=lambda: self.taken * MB,
            release=self._release,
            brought=self._brought,
            reset=self.ended.extend,
            look_seconds=0.001,
        )

    def _release(self) -> None:
        self.taken -= self.freed
        self.freed = 0

    def _brought(self, addresses: Collection[str]) -> Mapping[str, Brought]:
        assert addresses == HERE
        return dict(self.connections)

    def look(self, taken: int) -> list[str]:
        """Return whose connections are ended where the process takes so many MB."""
        self.taken = taken
        self.ended.clear()
        self.watch.look(HERE)
        return list(self.ended)


def test_those_that_brought_much_lose() -> None:
    """Connections that bring much while the memory grows are ended, and those that brought it before are not."""
    machine = Machine()
    assert machine.look(ALERT) == []
    machine.connections["flood"] = Brought(MB, 0)
    machine.connections["new"] = Brought(MB, 0)
    assert machine.look(MOST) == []
    assert machine.look(MOST + 1) == ["flood", "new"]


def test_what_is_not_read_counts() -> None:
    """A connection whose octets wait in the system, since others flood too, is one of those that flood."""
    machine = Machine()
    machine.connections["flood"] = Brought(MB, MB)
    machine.look(ALERT)
    assert machine.look(MOST + 1) == ["flood"]


def test_what_became_requests_does_not_count() -> None:
    """Callers whose octets became requests keep their connections while those of others explain the growth."""
    machine = Machine()
    machine.look(ALERT)
    assert machine.memory.arrived == {}
    machine.connections["other"] = Brought(10 * MB, 0)
    machine.memory.arrived["ipv4:other"] = MB
    machine.connections["flood"] = Brought(8 * MB, 0)
    assert machine.look(MOST + 1) == ["flood"]
    machine.look(ALERT - 1)
    assert machine.memory.arrived is None


def test_requests_spare_nobody_where_no_stranger_explains_the_growth() -> None:
    """A connection that brings a little in vain shields no flood of those that make calls beside it."""
    machine = Machine()
    machine.look(ALERT)
    machine.connections["other"] = Brought(10 * MB, 0)
    machine.memory.arrived["ipv4:other"] = MB
    machine.connections["flood"] = Brought(MB // 32, 0)
    assert machine.look(MOST + 1) == ["flood", "other"]


def test_memory_that_stays_ends_nobody() -> None:
    """A process that keeps its memory, for whatever reason, goes on; with 8 MiB more it ends connections again."""
    machine = Machine()
    machine.look(ALERT)
    machine.connections["flood"] = Brought(MB, 0)
    assert machine.look(MOST + 1) == ["flood"]
    assert machine.look(MOST + 1) == []
    assert machine.look(MOST + 9) == []
    assert machine.look(MOST + 10) == ["flood"]


def test_calm_begins_anew() -> None:
    """Octets that a connection brought before the memory was short again do not count."""
    machine = Machine()
    machine.look(ALERT)
    machine.connections["flood"] = Brought(MB, 0)
    assert machine.look(MOST + 1) == ["flood"]
    assert machine.look(ALERT - 1) == []
    machine.look(ALERT)
    assert machine.look(MOST + 1) == []


def test_what_was_brought_long_ago_does_not_count() -> None:
    """Where memory stays short for long, what a caller has brought in all that time does not count."""
    machine = Machine()
    machine.look(ALERT)
    machine.connections["other"] = Brought(10 * MB, 0)
    for _ in range(501):
        assert machine.look(ALERT) == []
    machine.connections["flood"] = Brought(MB, 0)
    assert machine.look(MOST + 1) == ["flood"]


def test_memory_that_is_counted_or_free_ends_nobody() -> None:
    """Mails within the budget, and memory that the system has back when it is asked for, are no flood."""
    machine = Machine()
    machine.counted = 200
    machine.look(ALERT + 200)
    machine.connections["flood"] = Brought(MB, 0)
    assert machine.look(MOST + 200) == []
    machine.freed = 50
    assert machine.look(MOST + 201) == []
    assert machine.look(MOST + 201) == ["flood"]


async def test_it_looks_while_the_loop_stands_still() -> None:
    """A thread of its own looks: gRPC may read a flood on the thread of the loop. It ends with the task."""
    before = set(threading.enumerate())  # of which a test before may have left one that ends meanwhile
    machine = Machine()
    machine.connections["flood"] = Brought(MB, MB)
    task = asyncio.create_task(machine.watch.run(HERE))
    await asyncio.sleep(0)
    machine.taken = MOST + 1
    for _ in range(10_000):
        if machine.ended:
            break
        time.sleep(0.001)  # noqa: ASYNC251  the loop stands still
    assert machine.ended == ["flood"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(1000):
        if set(threading.enumerate()) <= before:
            break
        await asyncio.sleep(0.01)
    assert set(threading.enumerate()) <= before


async def test_a_look_that_fails_does_not_end_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong in a look, the log says so, and the thread looks again."""
    machine = Machine()
    machine.connections["flood"] = Brought(MB, MB)
    brought, failed = machine._brought, list[Collection[str]]()

    def fail_once(addresses: Collection[str]) -> Mapping[str, Brought]:
        if not failed:
            failed.append(addresses)
            raise RuntimeError("dictionary changed size during iteration")
        return brought(addresses)

    machine.watch._brought = fail_once
    task = asyncio.create_task(machine.watch.run(HERE))
    machine.taken = MOST + 1
    async with asyncio.timeout(20):
        while not machine.ended:  # noqa: ASYNC110  a thread ends them
            await asyncio.sleep(0.01)
    task.cancel()
    assert caplog.records[0].getMessage() == "memory could not be looked at"
    await asyncio.gather(task, return_exceptions=True)
