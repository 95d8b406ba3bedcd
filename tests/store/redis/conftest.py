"""Clients and replicas of real servers, each test in a namespace of its own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest

from otpmail.store.redis.client import Client
from otpmail.store.redis.dial import Access, OneServer
from ports import HOST
from redis_server import RedisServer
from store.clocks import Clock
from store.redis.replicas import Replica, replica

MakeClient = Callable[..., Client]
Start = Callable[..., Awaitable[Replica]]


@pytest.fixture
async def make_client() -> AsyncIterator[MakeClient]:
    """Make a client of a server; it is closed when the test ends."""
    async with AsyncExitStack() as stack:

        def make(server: RedisServer, *, access: Access | None = None, **options: Any) -> Client:
            client = Client(OneServer((HOST, server.port)), access or Access(), **options)
            stack.push_async_callback(client.close)
            return client

        yield make


@pytest.fixture
def clock() -> Clock:
    """A clock that stands until the test moves it."""
    return Clock()


@pytest.fixture
def namespace() -> str:
    """The namespace of the test's replicas."""
    return uuid4().hex


@pytest.fixture
async def start(redis_server: RedisServer, clock: Clock, namespace: str) -> AsyncIterator[Start]:
    """Start a replica; all are closed when the test ends."""
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> Replica:
            return await stack.enter_async_context(replica(redis_server, clock, namespace, **options))

        yield start
