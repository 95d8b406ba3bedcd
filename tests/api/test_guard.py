"""The guard around handlers of the tests, called as grpc.aio calls them, and in a real server."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

from calls import detail
from delivery.fakes import Nothing
from otpmail.api.batching import Batching
from otpmail.api.guard import Guard
from otpmail.api.parse import SMALL, parse
from otpmail.api.reads import Reads
from otpmail.api.status import Code
from otpmail.errors import CallerError, FailedPrecondition, InvalidArgument, NotFound, QueueFull, Unavailable
from otpmail.limits.memory import CALL_OCTETS, HELD, LARGE, READ_FACTOR, Memory
from otpmail.rpc.server import ENDED
from otpmail.rpc.table import GuardedServer, MethodTable
from otpmail.v1.mail_pb2 import GetMailRequest

SERVICE = "test.MailService"
SECRET = "the code is 271828"
Behaviour = Callable[[bytes, Any], Awaitable[bytes]]
Stream = Callable[[bytes, Any], AsyncIterator[bytes]]


def _as_stream(behaviour: Behaviour) -> Stream:
    """Make a streaming handler: it yields one response, and then does what the behaviour does."""

    async def responses(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        yield await behaviour(request, context)

    return responses


def _not_called(octets: bytes) -> bytes:
    raise AssertionError(octets)


class Guarded:
    """A guard, and the wrapped handlers as the method table gets them."""

    def __init__(
        self,
        behaviour: Behaviour,
        stream: Stream | None = None,
        *,
        batching: Batching | None = None,
        parsers: Mapping[str, Any] | None = None,
        memory: int = 1 << 30,
        **more: Any,
    ) -> None:
        methods: Any = self  # the table's part of it is below
        self.memory = Memory(memory, Nothing(), Nothing())
        reads = Reads(self.memory, most_octets=1 << 20, ended=ENDED)
        self.guard = Guard(batching or Batching(), parsers or {}, reads, **more)
        self.handlers: dict[str, Any] = {}
        GuardedServer(methods, self.guard).add_registered_method_handlers(
            SERVICE,
            {
                "Unary": grpc.unary_unary_rpc_method_handler(behaviour, request_deserializer=_not_called),
                "SendMail": grpc.unary_unary_rpc_method_handler(behaviour),
                "Stream": grpc.unary_stream_rpc_method_handler(stream or _as_stream(behaviour)),
                "Both": grpc.stream_stream_rpc_method_handler(behaviour),
            },
        )

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Keep the handlers, as the table does."""
        assert service == SERVICE
        self.handlers |= handlers


class Context:
    """The part of a call's context that is used; its caller has sent `request`."""

    def __init__(self, request: Any = b"") -> None:
        self.request = request
        self.aborted: list[Any] = []

    async def read(self) -> Any:
        """Return the request."""
        return self.request

    async def abort(self, *arguments: Any) -> None:
        """Keep the status, and raise as grpc.aio does."""
        self.aborted.append(arguments)
        raise grpc.aio.AbortError


async def _unary(guarded: Guarded, context: Context) -> Any:
    return await guarded.handlers["Unary"].stream_unary(None, context)


async def _stream(guarded: Guarded, context: Context) -> Any:
    return [response async for response in guarded.handlers["Stream"].stream_stream(None, context)]


async def _both(guarded: Guarded, context: Context) -> Any:
    return await guarded.handlers["Both"].stream_stream(b"", context)


each_kind = pytest.mark.parametrize("call", [_unary, _stream, _both], ids=["unary", "stream", "both"])


def _raises(error: BaseException) -> Behaviour:
    async def behaviour(_request: bytes, _context: Any) -> bytes:
        raise error

    return behaviour


@each_kind
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidArgument("to", "is empty"), Code.INVALID_ARGUMENT),
        (NotFound("no such mail"), Code.NOT_FOUND),
        (FailedPrecondition("too late"), Code.FAILED_PRECONDITION),
        (QueueFull(3), Code.RESOURCE_EXHAUSTED),
        (Unavailable("no relay"), Code.UNAVAILABLE),
    ],
)
async def test_our_errors_leave_as_their_statuses(
    call: Any, error: CallerError, code: Code, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets the message of the error, and nothing is logged."""
    guarded, context = Guarded(_raises(error)), Context()
    with pytest.raises(grpc.aio.AbortError):
        await call(guarded, context)
    ((status, message, _details),) = context.aborted
    assert (status, message) == (code, str(error))
    assert caplog.records == []
    assert guarded.guard.idle.is_set()


@each_kind
async def test_an_unexpected_error_is_internal_and_logged(call: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The client gets a fixed message and an id; the log has method, id and traceback."""
    guarded, context = Guarded(_raises(RuntimeError(SECRET))), Context()
    with caplog.at_level(logging.ERROR, "otpmail"), pytest.raises(grpc.aio.AbortError):
        await call(guarded, context)
    ((status, message, ((_key, details),)),) = context.aborted
    assert status is Code.INTERNAL
    assert SECRET not in message
    assert SECRET.encode() not in details
    (record,) = caplog.records
    error_id = record.fields["error_id"]  # type: ignore[attr-defined]
    assert error_id in message
    assert error_id in record.getMessage()
    assert record.fields["method"].startswith(f"/{SERVICE}/")  # type: ignore[attr-defined]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == SECRET
    assert guarded.guard.idle.is_set()


async def test_each_unexpected_error_has_its_own_id(caplog: pytest.LogCaptureFixture) -> None:
    """An id leads from the status to one entry of the log."""
    guarded = Guarded(_raises(RuntimeError(SECRET)))
    for _ in range(2):
        with pytest.raises(grpc.aio.AbortError):
            await _unary(guarded, Context())
    first, second = (record.fields["error_id"] for record in caplog.records)  # type: ignore[attr-defined]
    assert first != second


def _parse_number(octets: bytes) -> int:
    if not octets:
        raise InvalidArgument("request", "is no number")
    return int(octets)


async def test_requests_are_parsed_by_the_guard(caplog: pytest.LogCaptureFixture) -> None:
    """A method gets what its parser makes of the octets, and gRPC parses nothing itself; others get the octets."""
    seen: list[Any] = []

    async def behaviour(request: Any, _context: Any) -> bytes:
        seen.append(request)
        return b""

    parsers = {f"/{SERVICE}/Unary": _parse_number, f"/{SERVICE}/Stream": _parse_number}
    guarded = Guarded(behaviour, parsers=parsers)
    assert {handler.request_deserializer for handler in guarded.handlers.values()} == {None}
    await guarded.handlers["Unary"].stream_unary(None, Context(b"7"))
    assert [response async for response in guarded.handlers["Stream"].stream_stream(None, Context(b"8"))] == [
        b"first",
        b"",
    ]
    await guarded.handlers["Both"].stream_stream(b"9", Context())
    assert seen == [7, 8, b"9"]
    for call in (_unary, _stream):
        context = Context()
        with pytest.raises(grpc.aio.AbortError):
            await call(guarded, context)
        assert context.aborted[0][:2] == (Code.INVALID_ARGUMENT, "request: is no number")
    assert len(seen) == 3
    assert caplog.records == []
    assert guarded.guard.idle.is_set()


async def test_large_requests_are_parsed_in_turns() -> None:
    """A large request waits for a turn before it is parsed, and for another before its method; small ones don't."""
    happened: list[str] = []

    async def behaviour(_request: Any, _context: Any) -> bytes:
        happened.append("method")
        return b""

    async def turn() -> None:
        happened.append("turn")

    def parse(_octets: bytes) -> Any:
        happened.append("parse")

    guarded = Guarded(behaviour, parsers={f"/{SERVICE}/SendMail": parse}, turn=turn)
    for size, expected in ((SMALL, ["parse", "method"]), (SMALL + 1, ["turn", "parse", "turn", "method"])):
        happened.clear()
        await guarded.handlers["SendMail"].stream_unary(None, Context(bytes(size)))
        assert happened == expected


async def test_no_octets_of_a_large_request_are_kept() -> None:
    """The octets of a large request are let go of once it is parsed, however long its call goes on."""
    happened: list[str] = []

    class Octets(bytes):
        def __del__(self) -> None:
            happened.append("freed")

    class OnceRead(Context):
        async def read(self) -> Any:
            return Octets(SMALL + 1)

    async def behaviour(_request: Any, _context: Any) -> bytes:
        happened.append("method")
        return b""

    guarded = Guarded(behaviour, parsers={f"/{SERVICE}/SendMail": len})
    await guarded.handlers["SendMail"].stream_unary(None, OnceRead())
    assert happened == ["freed", "method"]


@each_kind
async def test_a_call_that_has_ended_itself_is_left_alone(call: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that aborts its call has sent the status: it is neither logged nor aborted again."""

    async def aborts(_request: bytes, context: Any) -> bytes:
        await context.abort(Code.UNIMPLEMENTED, "not here")
        return b""

    guarded, context = Guarded(aborts), Context()
    with pytest.raises(grpc.aio.AbortError):
        await call(guarded, context)
    assert context.aborted == [(Code.UNIMPLEMENTED, "not here")]
    assert caplog.records == []
    assert guarded.guard.idle.is_set()


@each_kind
async def test_a_call_whose_caller_is_gone(call: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A read or a write that fails because the caller has gone is left to gRPC, and not logged."""
    guarded, context = Guarded(_raises(grpc.aio.InternalError())), Context()
    with pytest.raises(grpc.aio.InternalError):
        await call(guarded, context)
    assert context.aborted == []
    assert caplog.records == []
    assert guarded.guard.idle.is_set()


@each_kind
async def test_a_cancelled_call_is_cancelled(call: Any, caplog: pytest.LogCaptureFixture) -> None:
    """CancelledError passes through the guard: no status, no log, and the call no longer counts as running."""
    running = asyncio.Event()

    async def waits(_request: bytes, _context: Any) -> bytes:
        running.set()
        await asyncio.Event().wait()
        return b""

    guarded, context = Guarded(waits), Context()
    task = asyncio.create_task(call(guarded, context))
    await running.wait()
    assert not guarded.guard.idle.is_set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert context.aborted == []
    assert caplog.records == []
    assert guarded.guard.idle.is_set()


async def test_a_stream_without_a_reader_is_closed() -> None:
    """When the caller goes between two responses, the handler is closed at once, not by the garbage collector."""
    closed = asyncio.Event()

    async def endless(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"again"
        finally:
            closed.set()

    guarded = Guarded(_raises(RuntimeError()), endless)
    responses = guarded.handlers["Stream"].stream_stream(None, Context(b""))
    assert await anext(responses) == b"again"
    assert not guarded.guard.idle.is_set()
    await responses.aclose()
    assert closed.is_set()
    assert guarded.guard.idle.is_set()


async def _echo(request: bytes, _context: Any) -> bytes:
    return request + b"!"


@each_kind
async def test_no_new_call_is_accepted_during_a_stop(call: Any) -> None:
    """A new call gets UNAVAILABLE, and its handler does not run."""
    guarded, context = Guarded(_echo), Context()
    assert await call(guarded, context) in (b"!", [b"first", b"!"])
    guarded.guard.refuse_calls()
    with pytest.raises(grpc.aio.AbortError):
        await call(guarded, context)
    ((status, message, _),) = context.aborted
    assert (status, message) == (Code.UNAVAILABLE, "the service is stopping")
    assert guarded.guard.idle.is_set()


async def test_idle_when_the_last_call_has_ended() -> None:
    """`idle` is set when the last of the running calls has ended."""
    going = [asyncio.Event() for _ in range(2)]

    async def waits(request: bytes, _context: Any) -> bytes:
        await going[request[0]].wait()
        return b""

    guarded = Guarded(waits)
    handler = guarded.handlers["Unary"]
    tasks = [asyncio.create_task(handler.stream_unary(None, Context(bytes([place])))) for place in range(2)]
    await asyncio.sleep(0)
    assert repr(guarded.guard) == "<Guard 2 calls running>"
    going[0].set()
    await tasks[0]
    assert not guarded.guard.idle.is_set()
    guarded.guard.refuse_calls()
    assert repr(guarded.guard) == "<Guard 1 calls running, stopping>"
    going[1].set()
    await tasks[1]
    assert guarded.guard.idle.is_set()


async def test_through_a_real_server() -> None:
    """A client of a real server gets our status with details, INTERNAL for an unexpected error, and responses."""
    errors: list[Exception] = [InvalidArgument("to", "is empty"), RuntimeError(SECRET)]

    async def behaviour(request: bytes, _context: Any) -> bytes:
        if errors:
            raise errors.pop(0)
        return request

    server = grpc.aio.server()
    methods = MethodTable()
    server.add_generic_rpc_handlers((methods,))
    memory = Memory(1 << 30, Nothing(), Nothing())
    guard = GuardedServer(methods, Guard(Batching(), {}, Reads(memory, most_octets=1 << 20, ended=ENDED)))
    guard.add_registered_method_handlers(SERVICE, {"Unary": grpc.unary_unary_rpc_method_handler(behaviour)})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_unary(f"/{SERVICE}/Unary")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"x")
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert detail(caught.value, BadRequest).field_violations[0].field == "to"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"x")
            assert caught.value.code() is grpc.StatusCode.INTERNAL
            assert SECRET not in str(caught.value)
            assert detail(caught.value, ErrorInfo).metadata["error_id"] in str(caught.value.details())
            assert await call(b"x") == b"x"
    finally:
        await server.stop(None)


class HeldBack(Batching):
    """Holds every call back until `turn` is done, and keeps how many were in flight at each."""

    def __init__(self) -> None:
        super().__init__()
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.in_flight: list[int] = []

    def take(self, in_flight: int) -> asyncio.Future[None]:
        """Return what the call waits for."""
        self.in_flight.append(in_flight)
        return self.turn


async def test_unary_calls_begin_in_batches() -> None:
    """Unary calls wait for their batch, and count as running meanwhile; streams do not wait."""
    begun: list[bytes] = []

    async def behaviour(request: bytes, _: object) -> bytes:
        begun.append(request)
        return request

    batching = HeldBack()
    guarded = Guarded(behaviour, batching=batching)
    call = asyncio.ensure_future(guarded.handlers["Unary"].stream_unary(None, Context(b"unary")))
    await asyncio.sleep(0)
    assert (begun, batching.in_flight) == ([], [1])
    await guarded.handlers["Both"].stream_stream(b"both", Context())
    another = asyncio.ensure_future(guarded.handlers["Unary"].stream_unary(None, Context(b"another")))
    await asyncio.sleep(0)
    assert (begun, batching.in_flight) == ([b"both"], [1, 2])
    assert not guarded.guard.idle.is_set()
    batching.turn.set_result(None)
    assert (await call, await another) == (b"unary", b"another")
    assert guarded.guard.idle.is_set()


async def test_streams_do_not_count_for_a_batch() -> None:
    """Streams last long: a unary call beside them must not wait for as many calls."""
    ends = asyncio.Event()

    async def behaviour(request: bytes, _: object) -> bytes:
        if request == b"stream":
            await ends.wait()
        return request

    batching = HeldBack()
    batching.turn.set_result(None)
    guarded = Guarded(behaviour, batching=batching)
    streams = [asyncio.ensure_future(guarded.handlers["Both"].stream_stream(b"stream", Context())) for _ in range(5)]
    await asyncio.sleep(0)
    for _ in range(2):
        assert await guarded.handlers["Unary"].stream_unary(None, Context(b"unary")) == b"unary"
    assert batching.in_flight == [1, 1]
    ends.set()
    await asyncio.gather(*streams)


async def test_a_call_counts_while_it_runs() -> None:
    """The memory counts each call, and its request, a large one several times, until it has ended."""
    counted: list[int] = []

    async def behaviour(request: bytes, _context: Any) -> bytes:
        counted.append(guarded.memory.reading)
        return request

    guarded = Guarded(behaviour)
    for octets in (10, LARGE):
        await guarded.handlers["SendMail"].stream_unary(None, Context(bytes(octets)))
    await guarded.handlers["Both"].stream_stream(b"", Context())
    assert counted == [CALL_OCTETS + 10, CALL_OCTETS + READ_FACTOR * LARGE, CALL_OCTETS]
    assert guarded.memory.reading == 0


@each_kind
async def test_calls_beyond_their_part_are_refused(call: Callable[[Guarded, Context], Awaitable[Any]]) -> None:
    """A call is RESOURCE_EXHAUSTED once those that run take half of the budget, before its request is read."""
    guarded = Guarded(_never)
    guarded.memory.reading = guarded.memory.for_calls
    context = Context()
    context.read = _not_read  # type: ignore[method-assign]
    with pytest.raises(grpc.aio.AbortError):
        await call(guarded, context)
    assert context.aborted[0][0] is Code.RESOURCE_EXHAUSTED
    assert guarded.memory.reading == guarded.memory.for_calls


async def test_a_large_request_without_memory_is_refused() -> None:
    """A large request is RESOURCE_EXHAUSTED before it is parsed where the memory does not hold its mail."""
    guarded = Guarded(_never, memory=1 << 20)
    context = Context(bytes(300_000))
    with pytest.raises(grpc.aio.AbortError):
        await guarded.handlers["SendMail"].stream_unary(None, context)
    assert context.aborted[0][0] is Code.RESOURCE_EXHAUSTED
    assert guarded.memory.reading == 0


async def test_a_large_mail_counts_until_it_is_accepted() -> None:
    """A large request counts no more once its mail is accepted, which counts itself, however long its call goes on."""
    counted: list[int] = []

    async def behaviour(request: bytes, _context: Any) -> bytes:
        counted.append(guarded.memory.reading)
        held = HELD.get()
        assert held is not None
        held.release()
        counted.append(guarded.memory.reading)
        return request

    guarded = Guarded(behaviour)
    await guarded.handlers["SendMail"].stream_unary(None, Context(bytes(LARGE)))
    assert counted == [CALL_OCTETS + READ_FACTOR * LARGE, CALL_OCTETS]
    assert guarded.memory.reading == 0


@pytest.mark.parametrize("kind", ["Unary", "Stream"])
async def test_a_large_request_that_is_no_mail(kind: str) -> None:
    """A large request to a method that takes no mail is refused before it counts: nothing gives way to it."""
    guarded = Guarded(_never, parsers={f"/{SERVICE}/{kind}": partial(parse, kind=GetMailRequest)}, memory=1 << 20)
    guarded.memory.unsettled = guarded.memory.for_mails
    context = Context(GetMailRequest(id="x" * SMALL).SerializeToString())
    with pytest.raises(grpc.aio.AbortError):
        await (_unary if kind == "Unary" else _stream)(guarded, context)
    assert context.aborted[0][:2] == (
        Code.INVALID_ARGUMENT,
        f"id: makes the request larger than {SMALL} octets",
    )
    assert guarded.memory.reading == 0


async def test_a_call_without_a_request_is_refused() -> None:
    """A caller that ends a call of one request without any gets INVALID_ARGUMENT."""
    guarded, context = Guarded(_never), Context(grpc.aio.EOF)
    with pytest.raises(grpc.aio.AbortError):
        await guarded.handlers["Unary"].stream_unary(None, context)
    assert context.aborted[0][0] is Code.INVALID_ARGUMENT


async def _never(request: bytes, _context: Any) -> bytes:
    raise AssertionError(request)


async def _not_read() -> Any:
    raise AssertionError
