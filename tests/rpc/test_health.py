"""The health of the services: it follows the relays."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from otpmail.events import RelayDown, RelayIdle, RelayUp
from otpmail.rpc.health import SERVICES, Health

SERVING = {health_pb2.HealthCheckResponse.SERVING}
NOT_SERVING = {health_pb2.HealthCheckResponse.NOT_SERVING}


@pytest.fixture
async def health() -> AsyncIterator[Health]:
    """Start a Health with the task that applies its changes."""
    health = Health()
    await health.start()
    running = asyncio.create_task(health.run())
    yield health
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def _reported(health: Health) -> set[Any]:
    """Let `run` apply all changes, for which it waits on nothing else, and return what the services report."""
    for _ in range(len(SERVICES) + 2):
        await asyncio.sleep(0)
    context: Any = None
    return {
        (await health.servicer.Check(health_pb2.HealthCheckRequest(service=service), context)).status
        for service in SERVICES
    }


async def test_services_are_serving_while_any_relay_is_up(health: Health) -> None:
    """All services are SERVING while at least one relay is up, whichever it is."""
    health.notify(RelayDown("a", "refused", 1.0))
    assert await _reported(health) == NOT_SERVING
    health.notify(RelayUp("b", "bdat", 16))
    assert await _reported(health) == SERVING
    health.notify(RelayDown("b", "lost", 1.0))
    assert await _reported(health) == NOT_SERVING


async def test_an_idle_relay_is_not_up(health: Health) -> None:
    """A relay without an open connection does not count: once the other one is down, no service is SERVING."""
    for event in (RelayUp("b", "bdat", 16), RelayUp("a", "bdat", 16), RelayIdle("b")):
        health.notify(event)
    assert await _reported(health) == SERVING
    health.notify(RelayDown("a", "lost", 1.0))
    assert await _reported(health) == NOT_SERVING
    health.notify(RelayUp("b", "bdat", 16))
    assert await _reported(health) == SERVING


async def test_after_a_stop_no_service_is_serving(health: Health) -> None:
    """During a stop health is NOT_SERVING for good, also when a relay comes up."""
    health.notify(RelayUp("a", "bdat", 16))
    assert await _reported(health) == SERVING
    await health.stop()
    health.notify(RelayUp("b", "bdat", 16))
    assert await _reported(health) == NOT_SERVING
