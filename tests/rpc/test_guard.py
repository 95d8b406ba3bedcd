"""The edge, around handlers that are the test's own: in a real server, and called as grpc.aio calls them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

from integration.calls import detail
from otpmail.errors import CallerError, FailedPrecondition, InvalidArgument, NotFound, QueueFull, Unavailable
from otpmail.rpc.batching import Batching
from otpmail.rpc.guard import Guard

SERVICE = "test.Service"
SECRET = "the code is 271828"
Behaviour = Callable[[bytes, Any], Awaitable[bytes]]
Stream = Callable[[bytes, Any], AsyncIterator[bytes]]


def _as_stream(behaviour: Behaviour) -> Stream:
    """The same as a streaming handler: one response, then what the behaviour does."""

    async def responses(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        yield await behaviour(request, context)

    return responses


class Guarded:
    """An edge and the handlers behind it, as they come to the server."""

    def __init__(self, behaviour: Behaviour, stream: Stream | None = None) -> None:
        self.edge = Guard(self, Batching())  # type: ignore[arg-type]  # what it asks of a server is below
        self.handlers: dict[str, Any] = {}
        self.edge.add_registered_method_handlers(
            SERVICE,
            {
                "Unary": grpc.unary_unary_rpc_method_handler(behaviour),
                "Stream": grpc.unary_stream_rpc_method_handler(stream or _as_stream(behaviour)),
                "Both": grpc.stream_stream_rpc_method_handler(behaviour),
            },
        )

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """As a server's."""
        assert service == SERVICE
        self.handlers |= handlers


class Context:
    """As much of a call's context as is used."""

    def __init__(self) -> None:
        self.aborted: list[Any] = []

    async def abort(self, *arguments: Any) -> None:
        """Note the status, and raise as grpc.aio's does."""
        self.aborted.append(arguments)
        raise grpc.aio.AbortError


async def _unary(edge: Guarded, context: Context) -> Any:
    return await edge.handlers["Unary"].unary_unary(b"", context)


async def _stream(edge: Guarded, context: Context) -> Any:
    return [response async for response in edge.handlers["Stream"].unary_stream(b"", context)]


async def _both(edge: Guarded, context: Context) -> Any:
    return await edge.handlers["Both"].stream_stream(b"", context)


each_kind = pytest.mark.parametrize("call", [_unary, _stream, _both], ids=["unary", "stream", "both"])


def _raises(error: BaseException) -> Behaviour:
    async def behaviour(_request: bytes, _context: Any) -> bytes:
        raise error

    return behaviour


@each_kind
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidArgument("to", "is empty"), grpc.StatusCode.INVALID_ARGUMENT),
        (NotFound("no such mail"), grpc.StatusCode.NOT_FOUND),
        (FailedPrecondition("too late"), grpc.StatusCode.FAILED_PRECONDITION),
        (QueueFull(3), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (Unavailable("no relay"), grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_our_errors_leave_as_their_statuses(
    call: Any, error: CallerError, code: grpc.StatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    """With their own words, and nothing in the log: they are answers."""
    edge, context = Guarded(_raises(error)), Context()
    with pytest.raises(grpc.aio.AbortError):
        await call(edge, context)
    ((status, message, _details),) = context.aborted
    assert (status, message) == (code, str(error))
    assert caplog.records == []
    assert edge.edge.idle.is_set()


@each_kind
async def test_the_unforeseen_is_internal_and_logged(call: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A fixed text and an id; the log has method, id and traceback, the client not a word of the exception."""
    edge, context = Guarded(_raises(RuntimeError(SECRET))), Context()
    with caplog.at_level(logging.ERROR, "otpmail"), pytest.raises(grpc.aio.AbortError):
        await call(edge, context)
    ((status, message, ((_key, details),)),) = context.aborted
    assert status is grpc.StatusCode.INTERNAL
    assert SECRET not in message
    assert SECRET.encode() not in details
    (record,) = caplog.records
    error_id = record.fields["error_id"]  # type: ignore[attr-defined]
    assert error_id in message
    assert error_id in record.getMessage()
    assert record.fields["method"].startswith(f"/{SERVICE}/")  # type: ignore[attr-defined]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == SECRET
    assert edge.edge.idle.is_set()


async def test_each_unforeseen_error_has_its_own_id(caplog: pytest.LogCaptureFixture) -> None:
    """So that an answer leads to one entry of the log."""
    edge = Guarded(_raises(RuntimeError(SECRET)))
    for _ in range(2):
        with pytest.raises(grpc.aio.AbortError):
            await _unary(edge, Context())
    first, second = (record.fields["error_id"] for record in caplog.records)  # type: ignore[attr-defined]
    assert first != second


@each_kind
async def test_a_call_that_has_ended_itself_is_left_alone(call: Any, caplog: pytest.LogCaptureFixture) -> None:
    """AbortError is an Exception, and already on its way: it is neither unforeseen nor aborted once more."""

    async def aborts(_request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not here")
        return b""

    edge, context = Guarded(aborts), Context()
    with pytest.raises(grpc.aio.AbortError):
        await call(edge, context)
    assert context.aborted == [(grpc.StatusCode.UNIMPLEMENTED, "not here")]
    assert caplog.records == []
    assert edge.edge.idle.is_set()


@each_kind
async def test_a_call_whose_caller_is_gone(call: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A read or a write that fails by it is gRPC's to deal with: there is nobody to tell, and nothing to log."""
    edge, context = Guarded(_raises(grpc.aio.InternalError())), Context()
    with pytest.raises(grpc.aio.InternalError):
        await call(edge, context)
    assert context.aborted == []
    assert caplog.records == []
    assert edge.edge.idle.is_set()


@each_kind
async def test_a_cancelled_call_is_cancelled(call: Any, caplog: pytest.LogCaptureFixture) -> None:
    """CancelledError reaches the handler and passes through: no status, no log, and the call no longer counts."""
    running = asyncio.Event()

    async def waits(_request: bytes, _context: Any) -> bytes:
        running.set()
        await asyncio.Event().wait()
        return b""

    edge, context = Guarded(waits), Context()
    task = asyncio.create_task(call(edge, context))
    await running.wait()
    assert not edge.edge.idle.is_set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert context.aborted == []
    assert caplog.records == []
    assert edge.edge.idle.is_set()


async def test_a_stream_that_nobody_reads_on_is_closed() -> None:
    """When the caller goes between two responses, the handler's clean-up runs at once, not at some collection."""
    closed = asyncio.Event()

    async def endless(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"again"
        finally:
            closed.set()

    edge = Guarded(_raises(RuntimeError()), endless)
    responses = edge.handlers["Stream"].unary_stream(b"", Context())
    assert await anext(responses) == b"again"
    assert not edge.edge.idle.is_set()
    await responses.aclose()
    assert closed.is_set()
    assert edge.edge.idle.is_set()


async def _echo(request: bytes, _context: Any) -> bytes:
    return request + b"!"


@each_kind
async def test_no_new_call_is_taken_in_a_stop(call: Any) -> None:
    """Unavailable with a time to come back, and the handler does not run; what runs already goes on."""
    edge, context = Guarded(_echo), Context()
    assert await call(edge, context) in (b"!", [b"first", b"!"])
    edge.edge.refuse_calls()
    with pytest.raises(grpc.aio.AbortError):
        await call(edge, context)
    ((status, message, _),) = context.aborted
    assert (status, message) == (grpc.StatusCode.UNAVAILABLE, "the service is stopping")
    assert edge.edge.idle.is_set()


async def test_idle_when_the_last_call_has_ended() -> None:
    """Calls are counted one by one."""
    going = [asyncio.Event() for _ in range(2)]

    async def waits(request: bytes, _context: Any) -> bytes:
        await going[request[0]].wait()
        return b""

    edge = Guarded(waits)
    handler = edge.handlers["Unary"]
    tasks = [asyncio.create_task(handler.unary_unary(bytes([place]), Context())) for place in range(2)]
    await asyncio.sleep(0)
    assert repr(edge.edge) == "<Edge 2 calls running>"
    going[0].set()
    await tasks[0]
    assert not edge.edge.idle.is_set()
    edge.edge.refuse_calls()
    assert repr(edge.edge) == "<Edge 1 calls running, stopping>"
    going[1].set()
    await tasks[1]
    assert edge.edge.idle.is_set()


async def test_through_a_real_server() -> None:
    """grpc.aio itself: our status with its details, INTERNAL for the unforeseen, and an answer where all is well."""
    errors: list[Exception] = [InvalidArgument("to", "is empty"), RuntimeError(SECRET)]

    async def behaviour(request: bytes, _context: Any) -> bytes:
        if errors:
            raise errors.pop(0)
        return request

    server = grpc.aio.server()
    edge = Guard(server, Batching())
    edge.add_registered_method_handlers(SERVICE, {"Unary": grpc.unary_unary_rpc_method_handler(behaviour)})
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


async def test_calls_begin_in_batching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unary ones wait for each other where it is time to, streams do not; and they are running while they wait."""
    begun: list[bytes] = []

    async def behaviour(request: bytes, _: object) -> bytes:
        begun.append(request)
        return request

    edge = Guarded(behaviour)
    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asked: list[int] = []

    def take(under_way: int) -> asyncio.Future[None]:
        asked.append(under_way)
        return turn

    monkeypatch.setattr(edge.edge._batching, "take", take)
    call = asyncio.ensure_future(edge.handlers["Unary"].unary_unary(b"unary", Context()))
    await asyncio.sleep(0)
    assert (begun, asked) == ([], [1])
    await edge.handlers["Both"].stream_stream(b"both", Context())
    another = asyncio.ensure_future(edge.handlers["Unary"].unary_unary(b"another", Context()))
    await asyncio.sleep(0)
    assert (begun, asked) == ([b"both"], [1, 2])
    assert not edge.edge.idle.is_set()
    turn.set_result(None)
    assert (await call, await another) == (b"unary", b"another")
    assert edge.edge.idle.is_set()


async def test_streams_are_no_calls_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """They last: one unary call beside them would wait for others that never come."""
    asked: list[int] = []
    ends = asyncio.Event()

    async def behaviour(request: bytes, _: object) -> bytes:
        if request == b"stream":
            await ends.wait()
        return request

    edge = Guarded(behaviour)
    monkeypatch.setattr(edge.edge._batching, "take", asked.append)
    streams = [asyncio.ensure_future(edge.handlers["Both"].stream_stream(b"stream", Context())) for _ in range(5)]
    await asyncio.sleep(0)
    for _ in range(2):
        assert await edge.handlers["Unary"].unary_unary(b"unary", Context()) == b"unary"
    assert asked == [1, 1]
    ends.set()
    await asyncio.gather(*streams)
