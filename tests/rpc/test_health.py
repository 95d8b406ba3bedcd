"""grpc.health.v1 follows the relays."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from otpmail.events import RelayDown, RelayIdle, RelayUp
from otpmail.rpc.health import SERVICES, Health


@pytest.fixture
async def health() -> AsyncIterator[Health]:
    """Start one, and let it carry out what it is told."""
    health = Health()
    await health.start()
    running = asyncio.create_task(health.run())
    yield health
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def _comes_to_serve(health: Health, *, serving: bool) -> None:
    """Wait until all services say so."""
    response: Any = health_pb2.HealthCheckResponse
    context: Any = None
    for service in SERVICES:
        request = health_pb2.HealthCheckRequest(service=service)
        async with asyncio.timeout(5):
            while True:
                answer = await health.servicer.Check(request, context)
                if answer.status == (response.SERVING if serving else response.NOT_SERVING):
                    break
                await asyncio.sleep(0)


async def test_it_serves_while_any_relay_is_up(health: Health) -> None:
    """Every service here needs one; which one is all the same."""
    health.notify(RelayDown("a", "refused", 1.0))
    await _comes_to_serve(health, serving=False)
    health.notify(RelayUp("b", "bdat", 16))
    await _comes_to_serve(health, serving=True)
    health.notify(RelayDown("b", "lost", 1.0))
    await _comes_to_serve(health, serving=False)


async def test_a_relay_that_was_left_is_up_no_more(health: Health) -> None:
    """No connection to it is open: when the one that it stood in for goes, none is up until one is dialled again."""
    for event in (RelayUp("b", "bdat", 16), RelayUp("a", "bdat", 16), RelayIdle("b")):
        health.notify(event)
    await _comes_to_serve(health, serving=True)
    health.notify(RelayDown("a", "lost", 1.0))
    await _comes_to_serve(health, serving=False)
    health.notify(RelayUp("b", "bdat", 16))
    await _comes_to_serve(health, serving=True)
