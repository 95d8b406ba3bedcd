"""The gRPC server: both contracts, health and reflection on one port."""

import asyncio
from typing import Any, NamedTuple, Self

import grpc
from grpc_health.v1 import health_pb2_grpc

from otpmail.events import Observer
from otpmail.mail.service import MailService
from otpmail.original import mail_pb2_grpc as original_pb2_grpc
from otpmail.otp.service import OtpService
from otpmail.rpc.access import Access
from otpmail.rpc.address import AddressServicer
from otpmail.rpc.auth import Admit, Authenticator
from otpmail.rpc.batching import MOST_SECONDS, Batching
from otpmail.rpc.bounds import bounds_of_mail, bounds_of_original_mail
from otpmail.rpc.compat import CompatMailServicer, CompatOtpServicer
from otpmail.rpc.guard import Guard, MethodTable
from otpmail.rpc.health import Health
from otpmail.rpc.listening import Listening, listen
from otpmail.rpc.mail import MailServicer
from otpmail.rpc.methods import SERVICES
from otpmail.rpc.otp import OtpServicer
from otpmail.rpc.parse import parsers
from otpmail.rpc.reads import Reads
from otpmail.rpc.reflection import add_reflection
from otpmail.rpc.refusals import Refusals
from otpmail.rpc.transport import server_options
from otpmail.settings import ServerSettings
from otpmail.v1 import address_pb2_grpc, mail_pb2_grpc, otp_pb2_grpc

_MOMENT = 0.02
_QUIET_MOMENTS = 5  # in which callers that had an answer have made their next call
_MOST_MOMENTS = 25
_FAREWELL_SECONDS = 0.02  # in which GOAWAY, the frame that ends a connection (RFC 9113, 6.8), leaves before the answers


class Server:
    """Listens where HOST says, and serves until `stop`.

    A request has at most `most_octets`. `connections` is how many there are on each address. `batch_seconds` is the
    longest that unary calls are held back under load (`rpc.batching`). The `observer` is notified of refused calls.
    With `shares_port` it is one of several processes on a port that their supervisor holds. `access` says who may call.
    Raises SettingsError for a file of callers or of TLS that can't be used.
    """

    def __init__(
        self,
        settings: ServerSettings,
        *,
        codes: OtpService,
        mails: MailService,
        health: Health,
        observer: Observer,
        most_octets: int,
        most_unsettled: int,
        connections: int,
        batch_seconds: float = MOST_SECONDS,
        shares_port: bool = False,
    ) -> None:
        self._settings = settings
        self._shares_port = shares_port
        self.access = Access(settings, observer, codes.profiles)
        memory = mails.admission.memory
        options = server_options(
            most_octets=most_octets,
            connections=connections,
            call_octets=memory.for_reading,
            shares_port=shares_port,
            age_seconds=settings.max_connection_age,
        )
        self._server = grpc.aio.server(options=options)
        reads = Reads(memory, most_octets=most_octets)
        methods = MethodTable(asks_callers=settings.asks_callers)
        authenticator = self.access.authenticator
        guards = _Guards.build(methods, mails, reads, observer, authenticator, batch_seconds=batch_seconds)
        self._guard = guards.of_ours
        mail = MailServicer(mails, reads, most_unsettled=most_unsettled, admit=guards.admit)
        _add_ours(guards.of_ours, codes, mails, mail)
        health_pb2_grpc.add_HealthServicer_to_server(health, guards.open if settings.health_open else guards.of_known)
        if settings.grpc_reflection:
            files = {service.full_name: service.file for service in SERVICES}
            add_reflection(files, guards.open, reads.read, health.streams)
        self._server.add_generic_rpc_handlers((methods,))

    async def start(self) -> Listening:
        """Listen on every address of HOST, and serve. Returns where, with the port that was chosen if PORT is 0.

        Raises SettingsError when the service can't listen on one of them.
        """
        listening = listen(self._settings, self.access.port_of(self._server), is_held=self._shares_port)
        await self._server.start()
        return listening

    def refuse_calls(self) -> None:
        """Answer new calls with UNAVAILABLE; running calls and health go on."""
        self._guard.refuse_calls()

    async def idle(self) -> None:
        """Wait until no call to our own methods is running; calls to health and reflection do not count."""
        await self._guard.idle.wait()

    async def stop(self, grace: float) -> None:
        """Stop listening, and cancel the calls that still run after `grace` seconds.

        gRPC cancels each call that comes between this moment and the one when its caller learns of the stop. So the
        callers are kept waiting for the answers to their refused calls meanwhile, and make no other.
        """
        release = self._guard.hold_refusals()
        await self._quiet()
        stopping = asyncio.create_task(self._server.stop(grace))
        await asyncio.sleep(_FAREWELL_SECONDS)
        release.set()
        await stopping

    async def _quiet(self) -> None:
        """Wait until no call has come for so many turns of the loop in a row, but not for long.

        One long pause would not do: calls may wait for a loop that had no processor meanwhile.
        """
        quiet, before = 0, self._guard.refused_calls
        for _ in range(_MOST_MOMENTS):
            await asyncio.sleep(_MOMENT)
            now = self._guard.refused_calls
            quiet, before = (quiet + 1 if now == before else 0), now
            if quiet == _QUIET_MOMENTS:
                return


class _Guards(NamedTuple):
    """The guards: `of_ours` for the methods of both contracts, `open` and `of_known` for health and reflection.

    `open` asks no caller who it is, `of_known` asks each. Both answer in a stop too, and no stop waits for them.
    `admit` tells who calls one of our methods. Generated code is annotated for a whole server, which a guard is not.
    """

    of_ours: Any
    open: Any
    of_known: Any
    admit: Admit | None

    @classmethod
    def build(
        cls,
        methods: Any,
        mails: MailService,
        reads: Reads,
        observer: Observer,
        authenticator: Authenticator | None,
        *,
        batch_seconds: float,
    ) -> Self:
        """Build them. Without an `authenticator` nobody is asked who calls."""
        bounds = (bounds_of_mail(mails.limits), bounds_of_original_mail(mails.limits))
        parse, refused = parsers(SERVICES, bounds), Refusals(observer).note
        admit, admit_anybody = (
            (None, None) if authenticator is None else (authenticator.admit, authenticator.admit_anybody)
        )
        batching, turn = Batching(most_seconds=batch_seconds), mails.admission.turns.wait
        return cls(
            Guard(methods, batching, parse, reads, turn, admit=admit, refused=refused),
            Guard(methods, Batching(most_seconds=0), parse, reads, refused=refused),
            Guard(methods, Batching(most_seconds=0), parse, reads, admit=admit_anybody, refused=refused),
            admit,
        )


def _add_ours(guard: Any, codes: OtpService, mails: MailService, mail: MailServicer) -> None:
    """Add the services of both contracts."""
    otp_pb2_grpc.add_OtpServiceServicer_to_server(OtpServicer(codes), guard)
    address_pb2_grpc.add_AddressServiceServicer_to_server(AddressServicer(codes.addresses), guard)
    mail_pb2_grpc.add_MailServiceServicer_to_server(mail, guard)
    original_pb2_grpc.add_OtpServiceServicer_to_server(CompatOtpServicer(codes), guard)
    original_pb2_grpc.add_MailServiceServicer_to_server(CompatMailServicer(mails), guard)
