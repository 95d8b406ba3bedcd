"""The methods of otpmail.v1 over HTTP, each by POST to its path."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from otpmail.api.auth import AUTHORIZATION, KEY, MOST_CHARACTERS
from otpmail.api.calls import CallEnded
from otpmail.api.service import Api
from otpmail.api.status import Code, status_of
from otpmail.callers import TRACE, TRACE_KEYS, Trace
from otpmail.errors import InvalidArgument, Unauthenticated
from otpmail.v1 import address_pb2, mail_pb2, otp_pb2
from otpmail.web.body import GZIP, IDENTITY, pack, read_body
from otpmail.web.connect import CODECS, HTTP_STATUS, JSON, VERSION, Codec, codec_of, error_body, seconds_of
from otpmail.web.context import CallContext, Ended
from otpmail.web.exchange import CLOSE, Exchange, Field, Headers

_FILES: tuple[Any, ...] = (otp_pb2, mail_pb2, address_pb2)
_WORTH_PACKING = 1024
_AUTHORIZATION = KEY.encode()
_NO_CERTIFICATE = "this service wants a certificate of a client"
_TRACE_FIELDS = tuple(key.encode() for key in TRACE_KEYS)

Fields = tuple[Field, ...]


class Method(NamedTuple):
    """A unary method in its guard, and what its request is."""

    path: str
    guarded: Callable[..., Awaitable[Message]]
    request: type[Message]

    def __repr__(self) -> str:
        return f"<Method {self.path}>"


class Methods:
    """All methods by their paths. With `wants_certificate` each call needs a connection with one, as over gRPC."""

    def __init__(self, api: Api, *, wants_certificate: bool = False) -> None:
        self._api = api
        self._wants_certificate = wants_certificate
        self._turn = api.mails.admission.turns.wait
        self.by_path: dict[str, Method] = {}
        servicers = {"OtpService": api.otp, "MailService": api.mail, "AddressService": api.address}
        for file in _FILES:
            for service in file.DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    if not (method.client_streaming or method.server_streaming):
                        path = f"/{service.full_name}/{method.name}"
                        behaviour = getattr(servicers[service.name], method.name)
                        guarded = api.guard.guard_call(path, behaviour, unary=True)
                        self.by_path[path] = Method(path, guarded, GetMessageClass(method.input_type))

    def __repr__(self) -> str:
        return f"<Methods {len(self.by_path)}>"

    async def serve(self, method: Method, exchange: Exchange, fields: Fields) -> None:
        """Answer one call, with these fields beside its own."""
        headers = exchange.headers
        codec = codec_of(headers.get(b"content-type", b""))
        if codec is None:
            await exchange.answer(415, b"", (b"accept-post", b", ".join(CODECS)), CLOSE, *fields)
            return
        encoding = headers.get(b"content-encoding", IDENTITY)
        try:
            seconds = seconds_of(headers.get(b"connect-timeout-ms"))
            _check_version(headers)
        except InvalidArgument as error:
            status = status_of(error)
            await _answer_error(exchange, (status.code, status.message, status.trailers), fields)
            return
        if encoding not in {GZIP, IDENTITY}:
            unknown = Code.UNIMPLEMENTED, "the body must be as it is, or packed by gzip", ()
            await _answer_error(exchange, unknown, (*fields, (b"accept-encoding", GZIP)))
            return
        self._note(headers)

        async def read(context: CallContext) -> bytes:
            """Read the request as the octets of protobuf."""
            if self._wants_certificate and exchange.connection.certificate is None:
                raise Unauthenticated(_NO_CERTIFICATE)
            body = await read_body(context, most=self._api.most_octets, encoding=encoding, turn=self._turn)
            return codec.decode(body, method.request)

        await _run(method, exchange, CallContext(exchange.connection, exchange.receive, read, seconds), codec, fields)

    def _note(self, headers: Headers) -> None:
        """Keep what the call says of its caller and of its trace for the methods."""
        if any(name in headers for name in _TRACE_FIELDS):
            ids = [(key, headers[key.encode()].decode("latin-1")) for key in TRACE_KEYS if key.encode() in headers]
            TRACE.set(Trace.read(ids))
        if self._api.asks_callers and (given := headers.get(_AUTHORIZATION)) is not None:
            AUTHORIZATION.set([given[:MOST_CHARACTERS].decode("latin-1")])


async def _run(method: Method, exchange: Exchange, context: CallContext, codec: Codec, fields: Fields) -> None:
    """Run a call, and answer it. Nobody is answered where the caller has gone."""
    try:
        message = await method.guarded(None, context)
    except CallEnded:
        pass
    except asyncio.CancelledError:
        if not context.take_cancellation():
            raise
    else:
        await _answer_message(exchange, codec, message, fields)
        return
    finally:
        context.close()
    if context.ended is not None:
        await _answer_error(exchange, context.ended, fields)


def _check_version(headers: Headers) -> None:
    version = headers.get(b"connect-protocol-version")
    if version not in {None, VERSION}:
        raise InvalidArgument("Connect-Protocol-Version", "must be 1")


async def _answer_message(exchange: Exchange, codec: Codec, message: Message, fields: Fields) -> None:
    body = codec.encode(message)
    head = ((b"content-type", codec.content_type), *fields)
    if len(body) >= _WORTH_PACKING and GZIP in exchange.headers.get(b"accept-encoding", b""):
        body = pack(body)
        head = (*head, (b"content-encoding", GZIP), (b"vary", b"accept-encoding"))
    await exchange.answer(200, body, *head)


async def _answer_error(exchange: Exchange, ended: Ended, fields: Fields) -> None:
    code, message, trailers = ended
    details = trailers[0][1] if trailers else b""
    head = ((b"content-type", JSON.content_type), *fields)
    if exchange.connection.cycle.more_body:
        head = (*head, CLOSE)
    await exchange.answer(HTTP_STATUS[code], error_body(code, message, details), *head)
