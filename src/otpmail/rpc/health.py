"""grpc.health.v1, kept in step with the relays: every service here needs one to keep its word."""

import asyncio

from grpc_health.v1.health import aio as health_aio
from grpc_health.v1.health_pb2 import HealthCheckResponse

from otpmail.events import Event, RelayDown, RelayIdle, RelayUp

SERVICES = ("", "mail.OtpService", "mail.MailService", "otpmail.v1.OtpService", "otpmail.v1.MailService")


class Health:
    """An Observer that sets the health of all services: SERVING once a connection to a relay is open.

    Setting a status waits for watchers, an observer must not; so a task of the app's carries the changes out in order.
    """

    event_types: frozenset[type[Event]] = frozenset({RelayUp, RelayDown, RelayIdle})

    def __init__(self) -> None:
        self.servicer = health_aio.HealthServicer()
        self._here: set[str] = set()
        self._changes: asyncio.Queue[bool] = asyncio.Queue()

    def notify(self, event: Event) -> None:
        """Follow the relays."""
        match event:
            case RelayUp(relay):
                self._here.add(relay)
            case RelayDown(relay) | RelayIdle(relay):
                self._here.discard(relay)
            case _:
                return
        self._changes.put_nowait(bool(self._here))

    async def start(self) -> None:
        """Say NOT_SERVING, until a relay is there."""
        await self._set(serving=False)

    async def run(self) -> None:
        """Carry changes out until cancelled."""
        while True:
            await self._set(serving=await self._changes.get())

    async def stop(self) -> None:
        """Say NOT_SERVING, for good."""
        await self.servicer.enter_graceful_shutdown()

    async def _set(self, *, serving: bool) -> None:
        status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        for service in SERVICES:
            await self.servicer.set(service, status)
