"""Open and settled mails of other replicas, listed the newest first while they come, move and settle."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from math import inf
from time import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from otpmail.model import Priority
from store.clocks import Clock
from store.entries import entry_of, mail_of, settled
from store.redis.replicas import Replica, replica

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from otpmail.store.base import Entry
    from otpmail.store.redis.script import Script
    from otpmail.store.wanted import Wanted
    from redis_server import RedisServer

    Start = Callable[..., Awaitable[Replica]]

SECONDS = 30  # for what comes by itself
LEASE = 30.0


@pytest.fixture
async def start(redis_server: RedisServer) -> AsyncIterator[Start]:
    """Start a replica; all are closed when the test ends."""
    namespace = uuid4().hex
    async with AsyncExitStack() as stack:

        async def start(lease_seconds: float = LEASE, now: float = 1000.0, **options: Any) -> Replica:
            clock = Clock()
            clock.time = now
            return await stack.enter_async_context(
                replica(redis_server, clock, namespace, lease_seconds=lease_seconds, **options)
            )

        yield start


def _entries(count: int, prefix: str = "m", every: float = 1.0) -> list[Entry]:
    """Return mails of all priorities, accepted one after the other, or all at once."""
    return [
        entry_of(mail_of(f"{prefix}{number}", create_time=1.0 + every * number), priority=Priority(number % 3))
        for number in range(count)
    ]


def _read(one: Replica, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets how many records each step reads from now on."""
    run, counts = one.client.run, []

    async def counted(script: Script, keys: Any, *words: Any, **options: Any) -> Any:
        if script.name == "mail_read":
            counts.append(len(keys))
        return await run(script, keys, *words, **options)

    monkeypatch.setattr(one.client, "run", counted)
    return counts


async def _listed(one: Replica, wanted: Wanted) -> list[str]:
    return [mail.id async for some in one.mails.remembered(wanted) for mail in some]


async def test_the_newest_come_first(start: Start) -> None:
    """Open mails of all owners come by their age alone, whatever their priority."""
    first, second, third = await start(), await start(), await start()
    entries = _entries(230)
    await first.accept(*entries[::2])
    await second.accept(*entries[1::2])
    assert await _listed(third, lambda: (-inf, inf)) == [entry.mail.id for entry in reversed(entries)]


async def test_mails_of_one_moment_all_come(start: Start) -> None:
    """Mails that were accepted in the same microsecond come once each, also where a slice can't hold them."""
    first, second = await start(), await start()
    entries = _entries(230, every=0.0) + _entries(70, "n")
    await first.accept(*entries)
    listed = await _listed(second, lambda: (-inf, inf))
    assert sorted(listed) == sorted(entry.mail.id for entry in entries)


async def test_a_page_reads_no_more_than_it_needs(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of thousands of mails, open or settled, those are read that may be on the page, and few more."""
    first, second = await start(), await start()
    entries = _entries(1500)
    await first.accept(*entries)
    for entry in entries[:100]:
        first.mails.settle(settled(entry.mail, entry.mail.create_time + 0.5))
    assert await first.mails.get("shop", "m99") is not None
    counts = _read(second, monkeypatch)
    listed = await _listed(second, lambda: (1201.0, 1300.0))
    assert set(listed) >= {entry.mail.id for entry in entries[1200:1300]}
    assert sum(counts) <= 200


@pytest.fixture
def now() -> float:
    """Return the time of the server, which the replicas of `start` go by then."""
    return time()


def _settle(one: Replica, entries: list[Entry], now: float) -> None:
    for entry in entries:
        one.mails.settle(settled(entry.mail, now))


def _entries_of(now: float, count: int, prefix: str) -> list[Entry]:
    return [entry_of(mail_of(f"{prefix}{number}", create_time=now)) for number in range(count)]


@pytest.mark.parametrize("reader", [100.0, 100_000.0])
async def test_replicas_that_remember_for_different_times(start: Start, now: float, reader: float) -> None:
    """Whatever MAIL_REMEMBER_SECONDS is now, or was when a mail settled, all mails of a page come."""
    names: set[str] = set()
    for seconds in (100.0, 100_000.0):
        one, entries = await start(remember_seconds=seconds, now=now), _entries_of(now, 120, f"{seconds:.0f}-")
        await one.accept(*entries)
        _settle(one, entries, now)
        assert await one.mails.get("shop", entries[-1].mail.id) is not None
        names |= {entry.mail.id for entry in entries}
    listing = await start(remember_seconds=reader, now=now)
    assert set(await _listed(listing, lambda: (now, inf))) == names


@pytest.mark.parametrize("reader", [100.0, 1_000_000.0])
async def test_replicas_that_keep_request_ids_for_different_times(start: Start, now: float, reader: float) -> None:
    """Whatever MAIL_REQUEST_SECONDS is now, or was when a mail settled, all mails of a page come."""
    names: set[str] = set()
    for seconds in (100.0, 1_000_000.0):
        one = await start(request_seconds=seconds, now=now)
        mails = [mail_of(f"{seconds:.0f}-{n}", request_id=f"{seconds}-{n}", create_time=now) for n in range(120)]
        entries = [entry_of(mail) for mail in mails]
        await one.accept(*entries)
        _settle(one, entries, now)
        assert await one.mails.get("shop", entries[-1].mail.id) is not None
        names |= {entry.mail.id for entry in entries}
    listing = await start(request_seconds=reader, now=now)
    assert set(await _listed(listing, lambda: (now, inf))) == names


async def test_mails_that_an_earlier_version_has_remembered(
    start: Start, redis_server: RedisServer, now: float
) -> None:
    """Mails of which nobody has noted for how long they are remembered come too, beside newer ones."""
    short, long = await start(remember_seconds=100.0, now=now), await start(remember_seconds=100_000.0, now=now)
    for one, name in ((short, "old"), (long, "new")):
        entries = _entries_of(now, 60, name)
        await one.accept(*entries)
        _settle(one, entries, now)
        assert await one.mails.get("shop", entries[-1].mail.id) is not None
        if one is short:
            redis_server.command("DEL", one.mails._keys.remembering.decode())
    assert len(await _listed(long, lambda: (now, inf))) == 120


@pytest.mark.parametrize("change", ["settle", "move"])
async def test_mails_that_change_while_they_are_listed_come(start: Start, change: str) -> None:
    """A mail that settles, or goes to another replica, while all are listed is listed."""
    first, second = await start(LEASE if change == "settle" else 1.0), await start()
    entries = _entries(300)
    await first.accept(*entries)
    listing = second.mails.remembered()
    listed: set[str] = set()
    while not listed:
        listed |= {mail.id for mail in await anext(listing)}
    if change == "settle":
        for entry in entries:
            first.mails.settle(settled(entry.mail))
        assert await first.mails.get("shop", "m299") is not None
    else:
        third = await start()
        await first.die()
        async with asyncio.timeout(SECONDS):
            while len(second.mails._books.held) + len(third.mails._books.held) < len(entries):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    listed |= {mail.id async for some in listing for mail in some}
    assert listed == {entry.mail.id for entry in entries}
