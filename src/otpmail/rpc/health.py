"""Serves grpc.health.v1: every service is SERVING while a relay and the store are up, since none works without them.

`liveness` is a service name of its own: it is SERVING as long as this process answers at all. The servicer is ours, see
docs/decisions/056-our-own-health-servicer.md.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from otpmail.api.calls import Context
from otpmail.events import DialFailed, Event, RelayDown, RelayIdle, RelayUp
from otpmail.limits.streams import StreamLimit

SERVICES = (
    "",
    "mail.OtpService",
    "mail.MailService",
    "otpmail.v1.OtpService",
    "otpmail.v1.AddressService",
    "otpmail.v1.MailService",
)
LIVENESS = "liveness"
PROBLEM = "otpmail-problem"
"""The metadata with the reason for which a service is NOT_SERVING, in words: its answer has no place for it."""

_NAMES = f"{', '.join(filter(None, SERVICES))} and {LIVENESS}, and the empty name for all services"

_Servicer: Any = health_pb2_grpc.HealthServicer  # the type stubs are older than List
_ListResponse: Any = health_pb2.HealthListResponse  # type: ignore[attr-defined]  # as above


class Health(_Servicer):  # type: ignore[misc]
    """An Observer that serves the health of all services: SERVING while a connection to a relay is open.

    A change only wakes the calls that watch. A client that does not read what it watches delays nobody. These calls
    count in `streams`, with those of reflection. `outage` returns why no relay is up, for anybody to read.
    """

    event_types: frozenset[type[Event]] = frozenset({RelayUp, RelayDown, RelayIdle, DialFailed})

    def __init__(self, streams: StreamLimit, outage: Callable[[], str] = str) -> None:
        self.streams = streams
        self._outage = outage
        self._told: str | None = None  # the problem at the last change
        self._up: set[str] = set()
        self._stopped = False
        self._has_store = True
        self._others_serve = False
        self._waiting: set[asyncio.Future[None]] = set()  # a set, so that thousands of watchers can leave at once

    def __repr__(self) -> str:
        return f"<Health {'SERVING' if self._serving else 'NOT_SERVING'}, up: {sorted(self._up)}>"

    def notify(self, event: Event) -> None:
        """Note which relays are up, and why they are not."""
        match event:
            case RelayUp(relay):
                self._up.add(relay)
            case RelayDown(relay) | RelayIdle(relay):
                self._up.discard(relay)
        if self.problem != self._told:
            self._wake_watchers()

    def set_store(self, *, up: bool) -> None:
        """Note whether the store takes changes: without it no code and no guaranteed mail can be accepted."""
        self._has_store = up
        self._wake_watchers()

    def set_others(self, *, serve: bool) -> None:
        """Note whether another process on this port serves: callers may come here while any of them does."""
        self._others_serve = serve
        self._wake_watchers()

    def stop(self) -> None:
        """Report NOT_SERVING for good; later changes have no effect."""
        self._stopped = True
        self._wake_watchers()

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        """Return the state of a service. Of one that is NOT_SERVING, trailing metadata say why (PROBLEM)."""
        status = self._status(request.service)
        if status == HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no such service; there are {_NAMES}")
        if status == HealthCheckResponse.NOT_SERVING:
            context.set_trailing_metadata(((PROBLEM, self.problem),))
        return HealthCheckResponse(status=status)

    async def List(self, request: Any, context: Context) -> Any:
        """Return the states of all services."""
        states = {name: HealthCheckResponse(status=self._status(name)) for name in (*SERVICES, LIVENESS)}
        return _ListResponse(statuses=states)

    async def Watch(self, request: HealthCheckRequest, context: Context) -> AsyncIterator[HealthCheckResponse]:
        """Yield the state of a service, and then each change of it. It never ends by itself. Raises TooManyStreams."""
        last = None
        with self.streams.open(context.peer()):
            while True:
                status = self._status(request.service)
                if status == last:
                    await self.changed()
                else:
                    yield HealthCheckResponse(status=status)
                    last = status

    @property
    def problem(self) -> str:
        """Why this process by itself should not be called now, in words; empty while it serves."""
        if self._stopped:
            return "the service is stopping"
        if not self._has_store:
            return "the store can't be written"
        return "" if self._up else ": ".join(filter(None, ("no relay is up", self._outage())))

    @property
    def _serving(self) -> bool:
        return self._others_serve or not self.problem

    def _status(self, service: str) -> int:
        if service == LIVENESS:
            return HealthCheckResponse.SERVING
        if service not in SERVICES:
            return HealthCheckResponse.SERVICE_UNKNOWN
        return HealthCheckResponse.SERVING if self._serving else HealthCheckResponse.NOT_SERVING

    async def changed(self) -> None:
        """Wait for the next change, which may be one that alters no answer."""
        change = asyncio.get_running_loop().create_future()
        self._waiting.add(change)
        try:
            await change
        finally:
            self._waiting.discard(change)

    def _wake_watchers(self) -> None:
        self._told = self.problem
        for change in self._waiting:
            if not change.done():  # a watcher that leaves at this moment
                change.set_result(None)
