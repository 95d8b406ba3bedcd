"""Mails of other replicas, watched by what their owners announce."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from otpmail.model import MailState
from otpmail.store.redis import announcements
from redis_server import RedisServer
from store.clocks import Clock
from store.entries import entry_of, mail_of, settled
from store.redis.replicas import Replica, replica

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from otpmail.model import Mail

    Start = Callable[[], Awaitable[Replica]]

SECONDS = 30  # for what comes by itself


@pytest.fixture
def namespace() -> str:
    """The namespace of the test's replicas."""
    return uuid4().hex


@pytest.fixture
async def start(redis_server: RedisServer, namespace: str) -> AsyncIterator[Start]:
    """Start a replica that is subscribed; all are closed when the test ends."""
    async with AsyncExitStack() as stack:
        yield _starting(stack, redis_server, namespace)


def _starting(stack: AsyncExitStack, server: RedisServer, namespace: str) -> Start:
    async def start() -> Replica:
        one = await stack.enter_async_context(replica(server, Clock(), namespace, subscribed=True, lease_seconds=30.0))
        async with asyncio.timeout(SECONDS):
            while _subscribed(server, namespace) < len(started) + 1:  # noqa: ASYNC110  the server tells nobody
                await asyncio.sleep(0.01)
        started.append(one)
        return one

    started: list[Replica] = []
    return start


def _subscribed(server: RedisServer, namespace: str) -> int:
    """Return how many replicas the questions of others come to."""
    answer = server.command("PUBSUB", "NUMSUB", f"{{{namespace}}}:watch")
    return int(answer.split()[-1].removeprefix(":"))


async def test_each_state_is_seen(start: Start) -> None:
    """A watcher on another replica sees the states that only the owner knows, as SENDING, in their order."""
    first, second = await start(), await start()
    await first.accept(entry := entry_of(mail_of("m1")))
    states = [replace(entry.mail, state=MailState.SENDING), replace(entry.mail, attempts=1), settled(entry.mail)]
    seen: list[Mail] = []
    async with asyncio.timeout(SECONDS):
        async for mail in second.mails.watch("shop", "m1"):
            seen.append(mail)
            if mail == entry.mail:
                for state in states:
                    first.owner.show(state)
    assert seen[-4:] == [entry.mail, *states]


async def test_a_mail_is_for_its_caller(start: Start) -> None:
    """A caller sees nothing of another caller's mail, though its owner announces that."""
    first, second = await start(), await start()
    await first.accept(entry_of(mail_of("m1")))
    assert [mail async for mail in second.mails.watch("bank", "m1")] == []
    assert first.owner.watchers == {}


async def test_a_mail_is_announced_for_as_long_as_it_is_watched(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner of a mail announces it no more once nobody has asked for it for a while."""
    monkeypatch.setattr(announcements, "KEPT_SECONDS", 0.3)
    first, second = await start(), await start()
    await first.accept(entry := entry_of(mail_of("m1")))
    async with asyncio.timeout(SECONDS):
        async with aclosing(second.mails.watch("shop", "m1")) as states:
            async for mail in states:
                if mail == entry.mail:
                    break
        assert len(first.owner.watchers["m1"]) == 1
        while first.owner.watchers["m1"]:  # noqa: ASYNC110  nobody announces it
            await asyncio.sleep(0.01)
    assert "0 mails of others" in repr(second.mails._announcements)


async def test_many_watchers_share_one_connection(start: Start, redis_server: RedisServer) -> None:
    """A replica has one subscription, however many mails of others are watched on it."""
    before = _subscriptions(redis_server)
    first, second = await start(), await start()
    entries = [entry_of(mail_of(f"m{number}")) for number in range(50)]
    await first.accept(*entries)

    async def watch(entry: Any) -> None:
        async for mail in second.mails.watch("shop", entry.mail.id):
            if mail == entry.mail:
                first.owner.show(settled(mail))

    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
        for entry in entries:
            tasks.create_task(watch(entry))
    assert _subscriptions(redis_server) == before + 2


async def test_a_watcher_outlives_the_server(redis_server: RedisServer, namespace: str) -> None:
    """A watcher waits while the server is down, and sees what its owner announces after that."""
    with RedisServer(redis_server.kind, "--appendfsync", "always") as server:
        async with AsyncExitStack() as stack:
            start = _starting(stack, server, namespace)
            first, second = await start(), await start()
            await first.accept(entry := entry_of(mail_of("m1")))
            seen: list[Mail] = []
            async with asyncio.timeout(SECONDS):
                async for mail in second.mails.watch("shop", "m1"):
                    seen.append(mail)
                    if mail == entry.mail and len(first.owner.watchers) == 1:
                        server.kill()
                        server.start()
                        first.owner.watchers = {"m1": set(), "restarted": set()}
                        first.owner.entries["m1"] = replace(entry, mail=replace(entry.mail, attempts=1))
                    elif mail.attempts == 1 and not mail.state.final:
                        first.owner.show(settled(mail))
            assert [(mail.state, mail.attempts) for mail in seen][-2:] == [
                (MailState.QUEUED, 1),
                (MailState.RELAYED, 1),
            ]


@pytest.mark.parametrize("message", ["", "no message", "\x91\x01", "\x93\x01\x02\x03", "\xc1"])
async def test_a_message_of_no_replica_is_passed_over(
    start: Start, redis_server: RedisServer, namespace: str, message: str
) -> None:
    """A message that can't be read, as of a later version or another program, ends no subscription."""
    first, second = await start(), await start()
    await first.accept(entry_of(mail := mail_of("m1")))
    seen: list[Mail] = []
    async with asyncio.timeout(SECONDS), aclosing(second.mails.watch("shop", "m1")) as states:
        async for state in states:
            seen.append(state)
            if len(seen) > 1:
                break
            channels = redis_server.command("PUBSUB", "CHANNELS", f"{{{namespace}}}:*").split()
            for channel in [one for one in channels if one.startswith("{")]:
                redis_server.command("PUBLISH", channel, message)
            first.owner.entries["m1"] = replace(first.owner.entries["m1"], mail=replace(mail, attempts=1))
    assert [state.attempts for state in seen] == [0, 1]


def _subscriptions(server: RedisServer) -> int:
    """Return how many connections are subscriptions."""
    return server.command("CLIENT", "LIST", "TYPE", "pubsub").count(" sub=")
