"""Serves grpc.health.v1: every service is SERVING while a relay is up, since none of them works without one."""

import asyncio

from grpc_health.v1.health import aio as health_aio
from grpc_health.v1.health_pb2 import HealthCheckResponse

from otpmail.events import Event, RelayDown, RelayIdle, RelayUp

SERVICES = ("", "mail.OtpService", "mail.MailService", "otpmail.v1.OtpService", "otpmail.v1.MailService")


class Health:
    """An Observer that sets the health of all services: SERVING while a connection to a relay is open.

    Setting a status awaits its watchers, and an observer must not wait. So `run`, a task of the app, applies the
    changes in their order.
    """

    event_types: frozenset[type[Event]] = frozenset({RelayUp, RelayDown, RelayIdle})

    def __init__(self) -> None:
        self.servicer = health_aio.HealthServicer()
        self._up: set[str] = set()
        self._changes: asyncio.Queue[bool] = asyncio.Queue()

    def notify(self, event: Event) -> None:
        """Note which relays are up."""
        match event:
            case RelayUp(relay):
                self._up.add(relay)
            case RelayDown(relay) | RelayIdle(relay):
                self._up.discard(relay)
            case _:
                return
        self._changes.put_nowait(bool(self._up))

    async def start(self) -> None:
        """Report NOT_SERVING until a relay is up."""
        await self._set(serving=False)

    async def run(self) -> None:
        """Apply the changes until cancelled."""
        while True:
            await self._set(serving=await self._changes.get())

    async def stop(self) -> None:
        """Report NOT_SERVING for good; later changes have no effect."""
        await self.servicer.enter_graceful_shutdown()

    async def _set(self, *, serving: bool) -> None:
        status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        for service in SERVICES:
            await self.servicer.set(service, status)
