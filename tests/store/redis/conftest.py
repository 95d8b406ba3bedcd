"""Clients of real servers, each test in a namespace of its own."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from otpmail.store.redis.client import Client
from otpmail.store.redis.dial import Access, OneServer
from redis_server import HOST, RedisServer

MakeClient = Callable[..., Client]


@pytest.fixture
async def make_client() -> AsyncIterator[MakeClient]:
    """Make a client of a server; it is closed when the test ends."""
    async with AsyncExitStack() as stack:

        def make(server: RedisServer, *, access: Access | None = None, **options: Any) -> Client:
            client = Client(OneServer((HOST, server.port)), access or Access(), **options)
            stack.push_async_callback(client.close)
            return client

        yield make
