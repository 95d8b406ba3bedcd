"""The methods of otpmail.v1 over HTTP, each by POST to its path."""

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from otpmail.api.auth import AUTHORIZATION, KEY, authorization_of
from otpmail.api.service import Api
from otpmail.api.status import status_of
from otpmail.callers import TRACE, TRACE_KEYS, Trace
from otpmail.errors import CallerError, InvalidArgument, Unauthenticated, Unimplemented
from otpmail.limits.memory import LARGE
from otpmail.v1 import address_pb2, mail_pb2, otp_pb2
from otpmail.web.answers import Fields
from otpmail.web.body import GZIP, IDENTITY, coding_of, pack, read_body, takes_gzip
from otpmail.web.connect import CODECS, JSON, PROTO, VERSION, Codec, decode, seconds_of
from otpmail.web.context import CallContext, Ended
from otpmail.web.errors import answer_error
from otpmail.web.exchange import Exchange
from otpmail.web.lines import LINES, LinesContext, run_lines
from otpmail.web.watching import STREAM_CODECS, read_one, run_stream

_FILES: tuple[Any, ...] = (otp_pb2, mail_pb2, address_pb2)
_TRACE_KEYS = frozenset(key.encode() for key in TRACE_KEYS)
_WORTH_PACKING = 1024
_AUTHORIZATION = KEY.encode()
_NO_CERTIFICATE = "this service wants a certificate of a client"


class Kind(Enum):
    """How a method is called: by one message for one, for a stream of them, or by streams in both directions."""

    UNARY = "application/json, application/proto"
    STREAM = "application/connect+json, application/connect+proto"
    LINES = "application/jsonl, application/x-ndjson"


_CODECS: Mapping[Kind, Mapping[bytes, Codec]] = {
    Kind.UNARY: CODECS,
    Kind.STREAM: STREAM_CODECS,
    Kind.LINES: dict.fromkeys(LINES, JSON),
}


class Method(NamedTuple):
    """A method in its guard, and what its request is."""

    path: str
    kind: Kind
    guarded: Callable[..., Any]
    request: type[Message]
    codecs: Mapping[bytes, Codec]

    def __repr__(self) -> str:
        return f"<Method {self.path}>"


class Methods:
    """All methods by their paths. With `wants_certificate` each call needs a connection with one, as over gRPC."""

    def __init__(self, api: Api, *, wants_certificate: bool = False) -> None:
        self._api = api
        self._wants_certificate = wants_certificate
        self._turn = api.mails.admission.turns.wait
        self._most_at_once = -1 if wants_certificate else min(LARGE - 1, api.most_octets)
        self.by_path: dict[str, Method] = {}
        servicers = {"OtpService": api.otp, "MailService": api.mail, "AddressService": api.address}
        for file in _FILES:
            for service in file.DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    path = f"/{service.full_name}/{method.name}"
                    guarded, kind = _guarded(api, path, getattr(servicers[service.name], method.name), method)
                    self.by_path[path] = Method(path, kind, guarded, GetMessageClass(method.input_type), _CODECS[kind])

    def __repr__(self) -> str:
        return f"<Methods {len(self.by_path)}>"

    async def serve(self, method: Method, exchange: Exchange, fields: Fields) -> None:
        """Answer one call, with these fields beside its own."""
        headers = exchange.headers
        content_type = headers.get(b"content-type", b"")
        codec = method.codecs.get(content_type) or _codec(method, content_type)
        if codec is None:
            await _refuse_type(method, exchange, fields)
            return
        named = headers.get(b"content-encoding")
        encoding = IDENTITY if named is None else coding_of(named)
        try:
            timeout = headers.get(b"connect-timeout-ms")
            seconds = None if timeout is None else seconds_of(timeout)
            if headers.get(b"connect-protocol-version", VERSION) != VERSION:
                raise InvalidArgument("Connect-Protocol-Version", "must be 1")
            if method.kind is not Kind.UNARY:
                self._check_certificate(exchange)
        except CallerError as error:
            await self._refuse(exchange, _ended_by(error), fields)
            return
        if encoding != IDENTITY and (encoding != GZIP or method.kind is not Kind.UNARY):
            unknown = Unimplemented("the body must be identity, or gzip in a unary call")
            await self._refuse(exchange, _ended_by(unknown), (*fields, (b"accept-encoding", GZIP)))
            return
        if not _TRACE_KEYS.isdisjoint(headers):
            ids = [(key.decode(), headers[key].decode("latin-1")) for key in _TRACE_KEYS if key in headers]
            TRACE.set(Trace.read(ids))
        if self._api.asks_callers and (given := headers.get(_AUTHORIZATION)) is not None:
            AUTHORIZATION.set(authorization_of([given.decode("latin-1")]))
        if method.kind is Kind.UNARY:
            await self._serve_unary(method, exchange, codec, encoding, seconds=seconds, fields=fields)
        elif method.kind is Kind.STREAM:
            await self._serve_stream(method, exchange, codec, seconds, fields)
        else:
            api = self._api
            context = LinesContext(exchange, seconds, fields, most=api.most_octets, memory=api.memory, turn=self._turn)
            await run_lines(method.guarded, context, takes_tokens=api.takes_tokens)

    async def _serve_unary(
        self,
        method: Method,
        exchange: Exchange,
        codec: Codec,
        encoding: bytes,
        *,
        seconds: float | None,
        fields: Fields,
    ) -> None:
        # fast path: a small body in protobuf that is here already is no read, 5 us; held by tests/web/test_methods.py
        body = exchange.whole_body(self._most_at_once) if codec is PROTO and encoding == IDENTITY else None
        read = partial(self._read, method, codec, encoding) if body is None else _read_already
        context = CallContext(exchange, read, seconds)
        message = await context.run(method.guarded(body, context))
        if message is not None:
            await _answer_message(exchange, codec, message, fields)
        elif context.ended is not None:
            await self._refuse(exchange, context.ended, fields)

    async def _read(self, method: Method, codec: Codec, encoding: bytes, context: CallContext) -> bytes:
        """Read a request as the octets of protobuf."""
        self._check_certificate(context.exchange)
        body = await read_body(context, most=self._api.most_octets, encoding=encoding, turn=self._turn)
        return await decode(codec, body, method.request, self._api.memory, self._turn)

    async def _serve_stream(
        self, method: Method, exchange: Exchange, codec: Codec, seconds: float | None, fields: Fields
    ) -> None:
        async def read(context: CallContext) -> bytes:
            """Read the request as the octets of protobuf."""
            body = await read_one(context, exchange.headers, most=self._api.most_octets, turn=self._turn)
            return await decode(codec, body, method.request, self._api.memory, self._turn)

        await run_stream(method.guarded, exchange, CallContext(exchange, read, seconds), codec, fields)

    def _refuse(self, exchange: Exchange, ended: Ended, fields: Fields) -> Awaitable[None]:
        return answer_error(exchange, ended, fields, takes_tokens=self._api.takes_tokens)

    def _check_certificate(self, exchange: Exchange) -> None:
        if self._wants_certificate and exchange.connection.certificate is None:
            raise Unauthenticated(_NO_CERTIFICATE)


def _ended_by(error: CallerError) -> Ended:
    status = status_of(error)
    return status.code, status.message, status.trailers


def _guarded(api: Api, path: str, behaviour: Callable[..., Any], method: Any) -> tuple[Callable[..., Any], Kind]:
    """Return a method in its guard, and how it is called."""
    if method.client_streaming:
        return api.guard.guard_call(path, behaviour, unary=False), Kind.LINES
    if method.server_streaming:
        return api.guard.guard_stream(path, behaviour), Kind.STREAM
    return api.guard.guard_call(path, behaviour, unary=True), Kind.UNARY


def _refuse_type(method: Method, exchange: Exchange, fields: Fields) -> Awaitable[None]:
    """Say which types of content the method takes."""
    text = f"the content-type must be {method.kind.value.replace(', ', ' or ')}"
    accepted = (b"accept-post", method.kind.value.encode())
    return exchange.answer_status(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, text, accepted, *fields)


def _codec(method: Method, content_type: bytes) -> Codec | None:
    """Return the codec of a body whose type is written in a rare way, None for a type that the method does not take."""
    media, _, parameters = content_type.partition(b";")
    charset = parameters.strip().lower().replace(b'"', b"")
    return method.codecs.get(media.strip().lower()) if charset in {b"", b"charset=utf-8"} else None


async def _read_already(context: CallContext) -> bytes:
    raise AssertionError(context)  # its guard has the octets


def _answer_message(exchange: Exchange, codec: Codec, message: Message, fields: Fields) -> Awaitable[None]:
    """Return what sends an answer."""
    body = codec.encode(message)
    head = ((b"content-type", codec.content_type), *fields)
    if len(body) >= _WORTH_PACKING and takes_gzip(exchange.headers.get(b"accept-encoding", b"")):
        body = pack(body)
        head = (*head, (b"content-encoding", GZIP), (b"vary", b"accept-encoding"))
    return exchange.answer(200, body, *head)
