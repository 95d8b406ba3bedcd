"""The subscription of a process: what it survives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from otpmail.store.redis import subscription
from otpmail.store.redis.client import Client
from otpmail.store.redis.dial import Access, OneServer
from otpmail.store.redis.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis_server import RedisServer
    from store.redis.conftest import MakeClient

SECONDS = 30  # for what comes by itself


class _Received:
    """A subscription to one channel."""

    def __init__(self, client: Client) -> None:
        self.texts = uuid4().hex.encode()
        self.queue: asyncio.Queue[object] = asyncio.Queue()
        self.subscription = Subscription(client)
        self.subscription.add(self.texts, self.queue.put_nowait)


@pytest.fixture
async def received(make_client: MakeClient, redis_server: RedisServer) -> AsyncIterator[_Received]:
    """Receive until the test ends."""
    received = _Received(make_client(redis_server))
    task = asyncio.create_task(received.subscription.run())
    yield received
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _publish(server: RedisServer, channel: bytes, text: str) -> None:
    async with asyncio.timeout(SECONDS):
        while server.command("PUBLISH", channel.decode(), text).strip() != ":1":  # noqa: ASYNC110  it may connect yet
            await asyncio.sleep(0.01)


async def test_a_silent_server_is_asked(
    received: _Received, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subscription to which nothing comes asks the server whether it is there, and goes on."""
    monkeypatch.setattr(subscription, "_SILENT_SECONDS", 0.01)
    await _publish(redis_server, received.texts, "first")
    asked = _pings(redis_server)
    async with asyncio.timeout(SECONDS):
        while _pings(redis_server) < asked + 3:  # noqa: ASYNC110  the server tells nobody
            await asyncio.sleep(0.01)
        await _publish(redis_server, received.texts, "second")
        assert [await received.queue.get(), await received.queue.get()] == [b"first", b"second"]


def _pings(server: RedisServer) -> int:
    """Return how often the server was asked."""
    lines = server.command("INFO", "commandstats").splitlines()
    return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in lines if line.startswith("cmdstat_ping:"))


class _Gone:
    """A connection whose other end has gone without a word."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self._replies = [[b"subscribe", b"channel", 1]]

    async def send_command(self, *words: Any) -> None:
        self.sent.append(words)

    async def read_response(self, **_: Any) -> Any:
        """Return that the channel is subscribed to, and then nothing."""
        await asyncio.sleep(0)
        return self._replies.pop() if self._replies else None

    async def disconnect(self, **_: Any) -> None:
        """Be closed."""


async def test_a_server_that_has_gone_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that answers no question is replaced by another one."""
    client = Client(OneServer(("127.0.0.1", 1)), Access())
    connections: list[_Gone] = []
    enough = asyncio.Event()

    async def connect() -> _Gone:
        connections.append(_Gone())
        if len(connections) > 1:
            enough.set()
        return connections[-1]

    monkeypatch.setattr(client, "connect", connect)
    monkeypatch.setattr(subscription, "_RETRY_SECONDS", 0.0)
    one = Subscription(client)
    one.add(b"channel", lambda _: None)
    task = asyncio.create_task(one.run())
    async with asyncio.timeout(SECONDS):
        await enough.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert connections[0].sent == [("SUBSCRIBE", b"channel"), ("PING",)]
    await client.close()
