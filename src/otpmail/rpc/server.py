"""The gRPC server: both contracts, health and reflection on one port."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from otpmail.api.methods import SERVICES
from otpmail.api.service import Api
from otpmail.original import mail_pb2_grpc as original_pb2_grpc
from otpmail.rpc.compat import CompatMailServicer, CompatOtpServicer
from otpmail.rpc.health import Health
from otpmail.rpc.listening import Listening, listen
from otpmail.rpc.reflection import add_reflection
from otpmail.rpc.table import GuardedServer, MethodTable
from otpmail.rpc.tls import port_of
from otpmail.rpc.transport import server_options
from otpmail.settings import ServerSettings
from otpmail.v1 import address_pb2_grpc, mail_pb2_grpc, otp_pb2_grpc

ENDED = grpc.aio.BaseError
"""The error with which gRPC ends a running call (`api.calls`)."""

_FAREWELL_SECONDS = 0.02  # in which GOAWAY, the frame that ends a connection (RFC 9113, 6.8), leaves before the answers


class Server:
    """Listens where HOST says, and serves the methods of `api` until `stop`.

    `connections` is how many there are on each address. With `shares_port` it is one of several processes on a port
    that their supervisor holds.
    """

    def __init__(
        self, settings: ServerSettings, api: Api, *, health: Health, connections: int, shares_port: bool = False
    ) -> None:
        self._settings = settings
        self._shares_port = shares_port
        self._access = api.access
        options = server_options(
            most_octets=api.most_octets,
            connections=connections,
            call_octets=api.memory.for_reading,
            shares_port=shares_port,
            age_seconds=settings.max_connection_age,
        )
        self._server = grpc.aio.server(options=options)
        methods = MethodTable(asks_callers=api.asks_callers)
        _add_ours(GuardedServer(methods, api.guard), api)
        is_open = api.open_guard() if settings.health_open else api.known_guard()
        guarded: Any = GuardedServer(methods, is_open)  # generated code is annotated for a whole server
        health_pb2_grpc.add_HealthServicer_to_server(health, guarded)
        if settings.grpc_reflection:
            files = {service.full_name: service.file for service in SERVICES}
            add_reflection(files, GuardedServer(methods, api.open_guard()), api.reads.read, health.streams)
        self._server.add_generic_rpc_handlers((methods,))

    async def start(self) -> Listening:
        """Listen on every address of HOST, and serve. Returns where, with the port that was chosen if PORT is 0.

        Raises SettingsError when the service can't listen on one of them.
        """
        listening = listen(self._settings, port_of(self._server, self._access), is_held=self._shares_port)
        await self._server.start()
        return listening

    async def stop(self, grace: float, told: Callable[[], object] = lambda: None) -> None:
        """Stop listening, and cancel the calls that still run after `grace` seconds.

        gRPC cancels each call that comes between this moment and the one when its caller learns of the stop. `told` is
        called then, so that refused callers can be kept waiting meanwhile, and make no other call.
        """
        stopping = asyncio.create_task(self._server.stop(grace))
        await asyncio.sleep(_FAREWELL_SECONDS)
        told()
        await stopping


def _add_ours(server: Any, api: Api) -> None:
    """Add the services of both contracts. Generated code is annotated for a whole server."""
    otp_pb2_grpc.add_OtpServiceServicer_to_server(api.otp, server)
    address_pb2_grpc.add_AddressServiceServicer_to_server(api.address, server)
    mail_pb2_grpc.add_MailServiceServicer_to_server(api.mail, server)
    original_pb2_grpc.add_OtpServiceServicer_to_server(CompatOtpServicer(api.codes), server)
    original_pb2_grpc.add_MailServiceServicer_to_server(CompatMailServicer(api.mails), server)
