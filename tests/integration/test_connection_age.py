"""MAX_CONNECTION_AGE: a connection of a caller ends, so that the caller opens another one."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from http2 import Connection

if TYPE_CHECKING:
    from service import Service


@pytest.mark.service(MAX_CONNECTION_AGE=1)
async def test_an_old_connection_ends(service: Service) -> None:
    """The service ends a connection without calls once it has that age."""
    began = time.monotonic()
    async with Connection(service.address) as connection:
        await asyncio.wait_for(connection.closed.wait(), 30)
    assert 0.8 < time.monotonic() - began < 30  # gRPC spreads the ends of connections by a tenth
